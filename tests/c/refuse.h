/* An allocator that refuses the N-th allocation, once or from then on, in front of the C library's own. */
#ifndef REFUSE_H
#define REFUSE_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* The C library's own allocator, under ours. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static atomic_long calls, live, fail_at; /* fail_at is 0 when nothing is to fail */
static atomic_bool for_ever;

static bool refuse(void) {
  long call = ++calls, at = fail_at;
  return at && (call == at || (call > at && for_ever));
}

static void *counted(void *memory) {
  if (memory) live++;
  return memory;
}

void *malloc(size_t size) { return refuse() ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return refuse() ? NULL : counted(__libc_calloc(n, size)); }
void *aligned_alloc(size_t to, size_t size) { return refuse() ? NULL : counted(__libc_memalign(to, size)); }
void *memalign(size_t to, size_t size) { return aligned_alloc(to, size); }
int posix_memalign(void **memory, size_t to, size_t size) {
  *memory = aligned_alloc(to, size);
  return *memory ? 0 : ENOMEM;
}
void *realloc(void *memory, size_t size) {
  if (!memory) return malloc(size);
  return refuse() ? NULL : __libc_realloc(memory, size);
}
void free(void *memory) {
  if (memory) live--;
  __libc_free(memory);
}

#endif
