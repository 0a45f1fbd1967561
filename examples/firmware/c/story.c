/* A model tells a story without an operating system and without a C library. The model is a part of the program
   (model.s); the emulator or debugger writes the text, where a board would use its serial port. */
#include <cerebellum.h>

extern const unsigned char model_start[], model_end[]; /* model.s */
extern unsigned char heap_start[], heap_end[];         /* the board's script */

/* RAM for a copy of weights, which are read faster there than in flash. */
enum { WEIGHTS = 512 * 1024 };

static int call(int operation, const void *argument) { /* semihosting */
#ifdef __arm__
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
#else
  register int a0 __asm__("a0") = operation;
  register const void *a1 __asm__("a1") = argument;
  __asm__ volatile(".balign 16\n.option push\n.option norvc\n"
                   "slli zero, zero, 0x1f\nebreak\nsrai zero, zero, 7\n.option pop"
                   : "+r"(a0) : "r"(a1) : "memory");
  return a0;
#endif
}

static void print(const char *text) { call(0x04, text); }

static _Noreturn void end(unsigned code) {
  const unsigned block[2] = {0x20026, code};
  call(0x20, block);
  for (;;) {}
}

void fault(void) { print("the processor met a fault\n"); end(102); }
static void on_panic(const char *message) { print(message); end(101); }

static bool on_text(void *user, const char *text, size_t length) {
  (void)user;
  for (size_t i = 0; i < length; i++) {
    const char piece[2] = {text[i], 0};
    print(piece);
  }
  return true;
}

int main(void) {
  static char message[256];
  cbl_options *options = NULL;
  cbl_model *model = NULL;
  cbl_session *session = NULL;
  unsigned char *heap = heap_start + WEIGHTS;
  size_t saved;

  cbl_status status = cbl_bare_start(heap, (size_t)(heap_end - heap), on_panic);
  if (!status) status = cbl_options_new(&options);
  if (!status) status = cbl_options_set_int(options, CBL_OPTION_CONTEXT, 128);
  if (!status) status = cbl_options_set_int(options, CBL_OPTION_CHUNK, 16);
  if (!status) status = cbl_options_set_int(options, CBL_OPTION_MAX_TOKENS, 64);
  if (!status)
    status = cbl_model_open_memory(model_start, (size_t)(model_end - model_start), options, &model, message, sizeof message);
  if (!status) status = cbl_model_copy_weights(model, heap_start, WEIGHTS, &saved, message, sizeof message);
  if (!status) status = cbl_session_new(model, options, &session, message, sizeof message);
  if (!status) print("Once upon a time");
  if (!status) status = cbl_generate(session, options, "Once upon a time", 16, on_text, NULL, NULL);
  if (status) {
    print(cbl_status_text(status));
    print(session ? cbl_session_error(session) : message);
  }
  print("\n");
  end((unsigned)status);
}
