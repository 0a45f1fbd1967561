/* Hosts that make it hard: another floating-point environment, tiny stacks, fork, dlopen and dlclose.
 * Usage: host MODEL LIBRARY */
#include "support.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fenv.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path, *library;

typedef struct { uint64_t hash; collected tokens; } results;

static bool collect_and_look(void *user, uint32_t token) {
  (void)token;
  /* The host's own code runs in the host's environment. */
  CHECK(fegetround() == FE_UPWARD || fegetround() == FE_TONEAREST);
  return collect_token(user, token);
}

/* Everything there is to compare: a long prompt, a fork, a draw. */
static void compute(results *to, int64_t threads) {
  memset(to, 0, sizeof *to);
  cbl_model *model = open_model(path);
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 300));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_THREADS, threads));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 8));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_SEED, 3));
  CHECK_OK(cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, 0.9));
  CHECK_OK(cbl_options_set_float(o, CBL_OPTION_TOP_P, 0.95));
  CHECK_OK(cbl_options_set_float(o, CBL_OPTION_REPETITION_PENALTY, 1.1));
  cbl_session *session = new_session(model, o);
  uint32_t prompt[40];
  for (uint32_t i = 0; i < 40; i++) prompt[i] = i * 31 % 1000;
  CHECK_OK(cbl_session_evaluate(session, prompt, 40));
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, collect_and_look, &to->tokens, NULL));
  to->hash = hash_logits(session);
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_model_free(model));
}

#ifdef __x86_64__
#include <xmmintrin.h>
static unsigned environment(void) { return _mm_getcsr() & ~0x3fu; }
static void be_hostile(void) {
  fesetround(FE_UPWARD);
  _mm_setcsr(_mm_getcsr() | 0x8040); /* flush to zero, denormals are zero */
}
static void be_normal(void) { _mm_setcsr(0x1f80); fesetround(FE_TONEAREST); }
#else
static int environment(void) { return fegetround(); }
static void be_hostile(void) { fesetround(FE_UPWARD); }
static void be_normal(void) { fesetround(FE_TONEAREST); }
#endif

static void floating_point_environment(void) {
  results normal, hostile;
  compute(&normal, 1);
  for (int64_t threads = 1; threads <= 2; threads++) {
    be_hostile();
    __typeof__(environment()) before = environment();
    compute(&hostile, threads);
    CHECK(environment() == before && fegetround() == FE_UPWARD);
    be_normal();
    CHECK(!memcmp(&normal, &hostile, sizeof normal));
  }
}

static void *compute_on_a_thread(void *to) {
  compute(to, 1);
  return to;
}

static void tiny_stack(void) {
  static results results_of_thread, expected;
  compute(&expected, 1);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  CHECK(!pthread_attr_setstacksize(&attributes, 64 << 10));
  pthread_t thread;
  CHECK(!pthread_create(&thread, &attributes, compute_on_a_thread, &results_of_thread));
  pthread_join(thread, NULL);
  pthread_attr_destroy(&attributes);
  CHECK(!memcmp(&expected, &results_of_thread, sizeof expected));
}

static size_t entries(const char *directory) {
  size_t count = 0;
  DIR *d = opendir(directory);
  while (readdir(d)) count++;
  closedir(d);
  return count;
}

/* A child of fork() uses, and frees, what its parent made, threads and all. */
static void forking(void) {
  cbl_model *model = open_model(path);
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_THREADS, 3));
  cbl_session *session = new_session(model, o);
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  uint64_t hash = hash_logits(session);
  for (int i = 0; i < 3; i++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      CHECK_OK(cbl_session_reset(session));
      CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
      CHECK(hash_logits(session) == hash);
      cbl_session *own = new_session(model, o);
      CHECK_OK(cbl_session_evaluate(own, TOKENS, 3));
      CHECK(hash_logits(own) == hash);
      CHECK_OK(cbl_session_free(own));
      CHECK_OK(cbl_session_free(session));
      CHECK_OK(cbl_model_free(model));
      _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
  }
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(hash_logits(session) == hash);
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_model_free(model));
}

#define LOAD(name) __typeof__(&name) p_##name = (__typeof__(&name))(uintptr_t)dlsym(handle, #name)

static bool ignore_text(void *user, const char *text, size_t length) {
  return (void)user, (void)text, (void)length, true;
}

typedef struct { void *handle; const cbl_model *model; const cbl_options *options; } loaded;

/* Tokenizes, generates in a form, classifies, applies a template: what prepares most. On a thread of its
 * own: one that made a text of a given form keeps the library loaded until it ends. */
static void *work_with_text(void *of) {
  void *handle = ((loaded *)of)->handle;
  const cbl_model *model = ((loaded *)of)->model;
  const cbl_options *o = ((loaded *)of)->options;
  static const char *const LABELS[2] = {"alarm", "timer"}, TEMPLATE[] = "max-tokens: 2\n---\n{text} b";
  LOAD(cbl_session_new);
  LOAD(cbl_session_free);
  LOAD(cbl_generate);
  LOAD(cbl_classifier_new);
  LOAD(cbl_classifier_free);
  LOAD(cbl_classify);
  LOAD(cbl_template_new);
  LOAD(cbl_template_free);
  LOAD(cbl_apply_template);
  cbl_session *session;
  cbl_classifier *classifier;
  cbl_template *template;
  size_t best;
  CHECK(!p_cbl_session_new(model, o, &session, NULL, 0));
  CHECK(!p_cbl_generate(session, o, "a", 1, ignore_text, NULL, NULL));
  CHECK(!p_cbl_classifier_new(model, o, LABELS, 2, &classifier, NULL, 0));
  CHECK(!p_cbl_classify(session, classifier, "wake me", 7, &best, NULL, 0));
  CHECK(!p_cbl_template_new(TEMPLATE, strlen(TEMPLATE), &template, NULL, 0));
  CHECK(!p_cbl_apply_template(session, template, o, "a. b", 4, ignore_text, NULL, NULL, 0));
  CHECK(!p_cbl_template_free(template));
  CHECK(!p_cbl_classifier_free(classifier));
  CHECK(!p_cbl_session_free(session));
  return NULL;
}

/* Loads the library, works with two threads, unloads it; says whether it is really gone. */
static void load_work_unload(const char *file, bool with_text) {
  void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (!handle) fprintf(stderr, "%s\n", dlerror());
  CHECK(handle);
  LOAD(cbl_options_new);
  LOAD(cbl_options_free);
  LOAD(cbl_options_set_int);
  LOAD(cbl_model_open);
  LOAD(cbl_model_free);
  LOAD(cbl_session_new);
  LOAD(cbl_session_free);
  LOAD(cbl_session_evaluate);
  cbl_model *model;
  cbl_session *session;
  cbl_options *o;
  CHECK(!p_cbl_options_new(&o));
  CHECK(!p_cbl_options_set_int(o, CBL_OPTION_THREADS, 2));
  CHECK(!p_cbl_options_set_int(o, CBL_OPTION_CONTEXT, with_text ? 64 : 16));
  CHECK(!p_cbl_model_open(path, o, &model, NULL, 0));
  CHECK(!p_cbl_session_new(model, o, &session, NULL, 0));
  CHECK(!p_cbl_session_evaluate(session, TOKENS, 1));
  CHECK(p_cbl_session_evaluate(session, TOKENS, 64) == CBL_CONTEXT_FULL);
  if (with_text) {
    if (cbl_has_constraints()) {
      LOAD(cbl_options_set_string);
      CHECK(!p_cbl_options_set_string(o, CBL_OPTION_CHOICES, "one\ntwo", 7));
    }
    loaded of = {handle, model, o};
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, work_with_text, &of));
    pthread_join(thread, NULL);
  }
  CHECK(!p_cbl_session_free(session));
  CHECK(!p_cbl_model_free(model));
  CHECK(!p_cbl_options_free(o));
  CHECK(!dlclose(handle));
  CHECK(!dlopen(file, RTLD_NOW | RTLD_NOLOAD));
}

static size_t in_use(void) { return mallinfo2().uordblks; }

/* Threads, descriptors and memory are the same after `times` rounds as before them, but for what text
 * leaves: a hash map's seeds, 88 bytes in three pieces. What grows once, such as the C library's tables of
 * modules and the heaps of threads on a busy machine, does not grow again: one of three turns must be flat. */
static void dlopen_often(const char *file, int times, bool with_text) {
  const size_t slack = (16 << 10) + (with_text ? 160 : 0) * (size_t)times;
  for (int i = 0; i < times / 10; i++) load_work_unload(file, with_text);
  size_t grown = 0;
  for (int turn = 0; turn < 3; turn++) {
    const size_t threads = entries("/proc/self/task"), files = entries("/proc/self/fd"), used = in_use();
    for (int i = 0; i < times; i++) load_work_unload(file, with_text);
    CHECK(entries("/proc/self/task") == threads);
    CHECK(entries("/proc/self/fd") == files);
    grown = in_use() > used ? in_use() - used : 0;
    if (grown < slack) return;
  }
  fprintf(stderr, "%zu bytes stay after each of %d times\n", grown / (size_t)times, times);
  exit(1);
}

/* A copy, because this program is linked with the library itself. */
static void dlopen_and_dlclose(void) {
  char file[] = "/tmp/cerebellum-XXXXXX", command[2048];
  int fd = mkstemp(file);
  CHECK(fd >= 0);
  close(fd);
  snprintf(command, sizeof command, "cp '%s' '%s'", library, file);
  CHECK(!system(command));
  dlopen_often(file, 1000, false);
  if (cbl_has_text()) dlopen_often(file, 100, true);
  CHECK(!unlink(file));
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  path = arguments[1], library = arguments[2];
  floating_point_environment();
  tiny_stack();
  forking();
  dlopen_and_dlclose();
  return 0;
}
