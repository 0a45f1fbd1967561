/* Every function gives the same in any floating-point environment of the host's, and leaves it as it was
 * (tests/c_interface/calls.rs). This program itself does no arithmetic with floating-point numbers. */

#include <fenv.h>
#include <signal.h>

#if defined __x86_64__
#include <xmmintrin.h>
typedef struct { unsigned control; unsigned short x87; } environment;

static environment current(void) {
  environment it = {_mm_getcsr(), 0};
  __asm__ volatile("fnstcw %0" : "=m"(it.x87));
  return it;
}

static void enter(environment it) {
  __asm__ volatile("fldcw %0" : : "m"(it.x87));
  _mm_setcsr(it.control);
}

static bool same(environment a, environment b) { return a.control == b.control && a.x87 == b.x87; }

/* MXCSR: flags 0x3f, denormals are zero 0x40, exceptions masked 0x1f80, rounding 0x6000, flush to zero
 * 0x8000. x87: exceptions masked 0x3f, rounding 0xc00. */
static const environment HOSTILE[] = {
    {0x3f80, 0x77f}, {0x5f80, 0xb7f}, {0x7f80, 0xf7f}, {0x9fc0, 0x37f}, {0x0000, 0x340}, {0xe07f, 0xf40},
};
#elif defined __aarch64__
typedef struct { unsigned long control, flags; } environment;

static environment current(void) {
  environment it;
  __asm__ volatile("mrs %0, fpcr" : "=r"(it.control));
  __asm__ volatile("mrs %0, fpsr" : "=r"(it.flags));
  return it;
}

static void enter(environment it) {
  __asm__ volatile("msr fpcr, %0" : : "r"(it.control));
  __asm__ volatile("msr fpsr, %0" : : "r"(it.flags));
}

static bool same(environment a, environment b) { return a.control == b.control && a.flags == b.flags; }

/* FPCR: rounding 3 << 22, flush to zero 1 << 24, default NaN 1 << 25, traps 0x9f00 (few processors have
 * them). FPSR: flags 0x9f. */
static const environment HOSTILE[] = {
    {1 << 22, 0}, {2 << 22, 0}, {3 << 22, 0}, {3 << 24, 0}, {0x9f00, 0}, {0x9f00 | 15 << 22, 0x9f},
};
#else
typedef struct { int control; } environment;
static environment current(void) { return (environment){fegetround()}; }
static void enter(environment it) { fesetround(it.control); }
static bool same(environment a, environment b) { return a.control == b.control; }
static const environment HOSTILE[] = {{FE_DOWNWARD}, {FE_UPWARD}, {FE_TOWARDZERO}};
#endif

static const char *function;
static environment hosts;

static void check_environment(void) {
  if (!same(current(), hosts)) {
    fprintf(stderr, "%s changed the environment\n", function);
    exit(1);
  }
}

static void trapped(int signal) {
  (void)signal;
  const char *end = " raised SIGFPE\n";
  if (write(2, function, strlen(function)) < 0 || write(2, end, strlen(end)) < 0) _exit(2);
  _exit(1);
}

static void see_logits_of(cbl_session *session) {
  const float *row;
  size_t n;
  if (cbl_session_logits(session, &row, &n) == CBL_OK) see(row, n * sizeof *row);
}

static void see_session(cbl_session *session) {
  if (!session) return;
  see_logits_of(session);
  cbl_status status = cbl_session_evaluate(session, TOKENS, 1);
  see(&status, sizeof status);
  see_logits_of(session);
}

static void see_model(const cbl_model *model) {
  if (!model) return;
  cbl_session *session = new_session(model, NULL);
  see_session(session);
  CHECK_OK(cbl_session_free(session));
}

static void see_batch(cbl_batch *batch) {
  if (!batch) return;
  cbl_status status = cbl_batch_evaluate(batch, SEQUENCES, LENGTHS, 2, TOKENS);
  see(&status, sizeof status);
  const float *row;
  size_t n;
  if (cbl_batch_logits(batch, 1, &row, &n) == CBL_OK) see(row, n * sizeof *row);
}

static void see_classifier(const cbl_classifier *classifier) {
  if (!classifier) return;
  size_t label;
  double probabilities[2];
  CHECK_OK(cbl_classify(f.session, classifier, "a b", 3, &label, probabilities, 2));
  see(&label, sizeof label);
  see(probabilities, sizeof probabilities);
}

static void see_template(const cbl_template *template) {
  if (!template) return;
  CHECK_OK(cbl_session_reset(f.session));
  cbl_status status =
      cbl_apply_template(f.session, template, f.options, "a b", 3, see_text, NULL, NULL, 0);
  see(&status, sizeof status); /* Some built-in ones do not fit. */
}

/* All that a call can have written, without times, and what its handles do. */
static void see_results(void) {
  see(tokens, tokens ? count * sizeof *tokens : 0);
  see(logits, logits ? count * sizeof *logits : 0);
  see(bytes, bytes ? count : 0);
  see_step(NULL, &step);
  see_piece(batch_step.index, &batch_step.token, sizeof batch_step.token);
  see(batch_step.text, batch_step.length);
  see(text_buffer, sizeof text_buffer);
  see(token_buffer, sizeof token_buffer);
  see(numbers, sizeof numbers);
  see(more_numbers, sizeof more_numbers);
  see(floats, sizeof floats);
  see(sizes, sizeof sizes);
  see(statuses, sizeof statuses);
  see(reasons, sizeof reasons);
  see(&reason, sizeof reason);
  see(&count, sizeof count);
  see(saved, saved_size);
  see(&plan, sizeof plan);
  info.architecture = info.digest = NULL;
  see(&info, offsetof(cbl_model_info, is_mapped) + sizeof info.is_mapped);
  see(&stats.position, sizeof stats.position);
  see(&stats.evaluated_tokens, sizeof stats.evaluated_tokens);
  see(&stats.pending_token, sizeof stats.pending_token);
  see(&applied, offsetof(cbl_template_result, seconds));
  see(&answered, sizeof answered);
  see_template(f.spare_template);
  see_classifier(f.spare_classifier);
  see_session(f.spare_session);
  see_model(f.spare_model);
  see_batch(f.spare_batch);
  see_session(f.session);
  see_batch(f.batch);
}

static void forget_results(void) {
  seen = 0xcbf29ce484222325u;
  tokens = NULL, logits = NULL, bytes = NULL, count = 0, reason = 0;
  memset(text_buffer, 0, sizeof text_buffer);
  memset(token_buffer, 0, sizeof token_buffer);
  memset(numbers, 0, sizeof numbers);
  memset(more_numbers, 0, sizeof more_numbers);
  memset(floats, 0, sizeof floats);
  memset(sizes, 0, sizeof sizes);
  memset(statuses, 0, sizeof statuses);
  memset(reasons, 0, sizeof reasons);
  memset(&step, 0, sizeof step);
  memset(&batch_step, 0, sizeof batch_step);
  memset(&plan, 0, sizeof plan);
  memset(&info, 0, sizeof info);
  memset(&stats, 0, sizeof stats);
  memset(&applied, 0, sizeof applied);
  memset(&answered, 0, sizeof answered);
}

/* What comes of a call with everything around it, all in one environment. */
static uint64_t outcome(void (*call)(void), environment in) {
  environment before = current();
  forget_results();
  hosts = in;
  enter(in);
  open_fixture();
  call();
  check_environment();
  see_results();
  close_fixture();
  check_environment();
  enter(before);
  return seen;
}

static void same_in_every_environment(const char *name, void (*call)(void), int variants) {
  environment normal = current();
  function = name;
  at_callback = check_environment;
  signal(SIGFPE, trapped);
  for (int v = 0; v < variants; v++) {
    variant = v;
    uint64_t expected = outcome(call, normal);
    for (size_t i = 0; i < sizeof HOSTILE / sizeof *HOSTILE; i++) {
      if (outcome(call, HOSTILE[i]) != expected) {
        fprintf(stderr, "%s, variant %d: another result in environment %zu\n", name, v, i);
        exit(1);
      }
    }
  }
}
