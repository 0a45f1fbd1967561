/* An allocator in front of the C library's own, that refuses the N-th allocation, once or from then on, or what
 * would pass a limit. */
#ifndef REFUSE_H
#define REFUSE_H

#include <errno.h>
#include <malloc.h>
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
static atomic_size_t used, most_used, limit; /* bytes; limit is 0 when there is none */

static bool refuse(size_t size) {
  long call = ++calls, at = fail_at;
  return (at && (call == at || (call > at && for_ever))) || (limit && used + size > limit);
}

static void *counted(void *memory) {
  if (!memory) return memory;
  live++;
  used += malloc_usable_size(memory);
  if (used > most_used) most_used = used;
  return memory;
}

void *malloc(size_t size) { return refuse(size) ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return refuse(n * size) ? NULL : counted(__libc_calloc(n, size)); }
void *aligned_alloc(size_t to, size_t size) { return refuse(size) ? NULL : counted(__libc_memalign(to, size)); }
void *memalign(size_t to, size_t size) { return aligned_alloc(to, size); }
int posix_memalign(void **memory, size_t to, size_t size) {
  *memory = aligned_alloc(to, size);
  return *memory ? 0 : ENOMEM;
}
void free(void *memory) {
  if (memory) {
    live--;
    used -= malloc_usable_size(memory);
  }
  __libc_free(memory);
}
void *realloc(void *memory, size_t size) {
  if (!memory) return malloc(size);
  size_t before = malloc_usable_size(memory);
  if (refuse(size > before ? size - before : 0)) return NULL;
  void *moved = __libc_realloc(memory, size);
  if (!moved) return NULL;
  live--;
  used -= before;
  return counted(moved);
}

#endif
