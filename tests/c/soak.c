/* Does everything again and again, in a random order that a seed repeats, and whatever goes wrong on purpose:
 * models opened and freed, sessions and batches made and freed, options, threads, generations, constraints,
 * conversations, cancellations, saving, restoring, errors. In the end memory, file descriptors and threads are what they were
 * once everything had happened some times.
 * Usage: soak MODEL DIRECTORY SECONDS [SEED]; with less than 60 seconds memory has not settled and is not looked
 * at, and nothing is printed. */
#include "support.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static const char *path;
static char saved_file[512], missing_file[512], broken_file[512];
static cbl_model *model;
static cbl_options *options;

/* ---- Random choices (SplitMix64) ---- */

static uint64_t state;

static uint64_t below(uint64_t n) {
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (z ^ z >> 31) % n;
}

#define PICK(array) array[below(sizeof(array) / sizeof *(array))]

static const char *const TEXTS[] = {
    "Once upon a time", "The cat sat.", "", " ", "Wake me at six. Then make tea, and wake me again at seven.",
    "\xc3\xa4\xe2\x82\xac\xf0\x9f\xa6\x8a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "12:30\n\n\t12:31",
    "<|endoftext|>",
};
static const char *const LABELS[] = {"alarm", "timer", "weather", "music"};

/* ---- Callbacks ---- */

/* Stops, or cancels the session, after some calls; or neither. */
typedef struct {
  cbl_session *session;
  uint64_t stop_after, cancel_after, calls;
} listener;

static bool hear(listener *listener) {
  uint64_t call = ++listener->calls;
  if (call == listener->cancel_after) CHECK_OK(cbl_session_cancel(listener->session));
  return call != listener->stop_after;
}

static bool on_text(void *user, const char *text, size_t length) { return (void)text, (void)length, hear(user); }
static bool on_token(void *user, uint32_t token) { return (void)token, hear(user); }
static bool on_step(void *user, const cbl_step *step) { return (void)step, hear(user); }
static bool on_batch_text(void *user, size_t index, const char *text, size_t length) {
  return (void)user, (void)index, (void)text, (void)length, below(20) != 0;
}

static void *cancel_soon(void *session) {
  usleep(300);
  CHECK_OK(cbl_session_cancel(session));
  return NULL;
}

/* Another thread cancels, sooner or later than the generation ends. */
static void cancelled_by_a_thread(cbl_session *session, const char *text) {
  pthread_t thread;
  listener listener = {session, 0, 0, 0};
  CHECK(!pthread_create(&thread, NULL, cancel_soon, session));
  cbl_status status = cbl_generate(session, options, text, strlen(text), on_text, &listener, NULL);
  CHECK(status == CBL_OK || status == CBL_CANCELLED || status == CBL_CONTEXT_FULL);
  CHECK(!pthread_join(thread, NULL));
  CHECK_OK(cbl_session_clear_cancel(session));
}

/* ---- What is done ---- */

static void set_options(void) {
  CHECK_OK(cbl_options_free(options));
  options = new_options();
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_CONTEXT, 32 + (int64_t)below(160)));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_CACHE, (int64_t)below(2)));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_THREADS, 1 + (int64_t)below(3)));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_CHUNK, 1 + (int64_t)below(64)));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_ALL_LOGITS, (int64_t)below(2)));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_MAX_TOKENS, (int64_t)below(12)));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_SEED, (int64_t)below(1u << 30)));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_DRAFT, (int64_t)below(6)));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_CALIBRATION, (int64_t)below(3)));
  CHECK_OK(cbl_options_set_float(options, CBL_OPTION_TEMPERATURE, (double)below(3) * 0.6));
  CHECK_OK(cbl_options_set_float(options, CBL_OPTION_TOP_P, 0.5 + (double)below(6) / 10));
  CHECK_OK(cbl_options_set_float(options, CBL_OPTION_REPETITION_PENALTY, 1 + (double)below(3) / 10));
  for (uint64_t stops = below(3); stops; stops--) CHECK_OK(cbl_options_add_stop(options, "\n.the" + stops, 1 + stops / 2));
  for (uint64_t biases = below(4); biases; biases--) {
    CHECK_OK(cbl_options_set_logit_bias(options, (uint32_t)below(200), (float)below(5) - 2));
  }
  if (!below(3)) CHECK_OK(cbl_options_add_example(options, TEXTS[0], strlen(TEXTS[0]), LABELS[0], strlen(LABELS[0])));
  if (cbl_has_constraints() && !below(4)) {
    static const struct {
      cbl_option key;
      const char *value;
    } FORMS[] = {
        {CBL_OPTION_CHOICES, "six\nseven thirty\nten"},
        {CBL_OPTION_REGEX, "[0-9]{1,2}:[0-9]{2}"},
        {CBL_OPTION_JSON_SCHEMA, "{\"type\": \"object\", \"properties\": {\"hour\": {\"enum\": [\"six\", \"ten\"]}}}"},
    };
    size_t form = below(3);
    CHECK_OK(cbl_options_set_string(options, FORMS[form].key, FORMS[form].value, strlen(FORMS[form].value)));
  }
}

static void generate(cbl_session *session) {
  listener listener = {session, below(8), below(8), 0};
  cbl_stop_reason reason;
  const char *text = PICK(TEXTS);
  cbl_status status;
  switch (below(4)) {
    case 0: status = cbl_generate_tokens(session, options, TOKENS, 3, on_token, &listener, &reason); break;
    case 1: status = cbl_generate_from_tokens(session, options, TOKENS, 3, on_text, &listener, &reason); break;
    case 2: status = cbl_generate_steps(session, options, TOKENS, 3, on_step, &listener, &reason); break;
    default: status = cbl_generate(session, options, text, strlen(text), on_text, &listener, &reason);
  }
  /* A session whose last logits are gone cannot go on from nothing. */
  CHECK(status == CBL_OK || status == CBL_CONTEXT_FULL || status == CBL_CANCELLED);
  CHECK_OK(cbl_session_clear_cancel(session));
}

/* Step by step, to the end or not. */
static void pull(cbl_session *session) {
  const char *text = PICK(TEXTS);
  uint64_t generation, steps = below(10);
  cbl_step step;
  cbl_stop_reason reason = CBL_STOP_NONE;
  cbl_status status = cbl_generation_begin(session, options, text, strlen(text), &generation);
  while (!status && !reason && steps--) {
    if (!below(10)) CHECK_OK(cbl_session_cancel(session));
    status = cbl_generation_next(session, generation, &step, sizeof step, &reason);
  }
  CHECK(status == CBL_OK || status == CBL_CONTEXT_FULL);
  if (below(4)) CHECK_OK(cbl_generation_end(session, generation, NULL));
  CHECK_OK(cbl_session_clear_cancel(session));
}

static void save_and_restore(cbl_session *session) {
  size_t size;
  cbl_status status = cbl_session_save(session, NULL, 0, &size);
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, status);
  char *saved = malloc(size);
  CHECK_OK(cbl_session_save(session, saved, size, &size));
  CHECK_OK(cbl_session_restore(session, saved, size));
  saved[below(size)] ^= 1 << below(8);
  status = cbl_session_restore(session, saved, size);
  CHECK(status == CBL_BAD_SAVED || status == CBL_CONTEXT_FULL); /* the number of tokens may be the damage */
  free(saved);
  CHECK_OK(cbl_session_save_file(session, saved_file));
  CHECK_OK(cbl_session_restore_file(session, saved_file));
  CHECK_STATUS(CBL_IO, cbl_session_restore_file(session, missing_file));
}

static void ask(cbl_session *session) {
  const char *text = PICK(TEXTS);
  double values[4];
  size_t lengths[4], best, width;
  static float embedding[4096];
  cbl_status status = cbl_score(session, options, text, strlen(text), LABELS, 4, values, lengths);
  CHECK(status == CBL_OK || status == CBL_CONTEXT_FULL || status == CBL_BAD_ARGUMENT);
  status = cbl_embed(session, options, text, strlen(text), embedding, 4096, &width);
  CHECK(status == CBL_OK || status == CBL_CONTEXT_FULL || status == CBL_BAD_ARGUMENT);

  cbl_classifier *classifier;
  CHECK_OK(cbl_classifier_new(model, options, LABELS, 2 + below(3), &classifier, NULL, 0));
  for (int i = 0; i < 2; i++) {
    status = cbl_classify(session, classifier, text, strlen(text), &best, values, 4);
    CHECK(status == CBL_OK || status == CBL_CONTEXT_FULL || status == CBL_BAD_ARGUMENT);
  }
  CHECK_OK(cbl_classifier_free(classifier));
}

static void use_template(cbl_session *session) {
  static const char OWN[] = "stop: \"\\n\"\nmax-tokens: 6\nsplit: sentences\n---\nText: {text}\nShort:";
  const char *text = PICK(TEXTS);
  listener listener = {session, below(8), below(8), 0};
  cbl_template *template;
  cbl_template_result result;
  if (below(2)) {
    CHECK_OK(cbl_template_new(OWN, sizeof OWN - 1, &template, NULL, 0));
  } else {
    CHECK_OK(cbl_template_named(model, "summarize", 9, &template, NULL, 0));
  }
  cbl_status status = cbl_apply_template(session, template, options, text, strlen(text), on_text, &listener, &result,
                                         sizeof result);
  CHECK(status == CBL_OK || status == CBL_CONTEXT_FULL || status == CBL_CANCELLED);
  CHECK_OK(cbl_session_clear_cancel(session));
  CHECK_OK(cbl_template_free(template));
}

/* A conversation of some turns, of which the model gives every second one. */
static void converse(cbl_session *session) {
  const char *roles[5] = {"user", "assistant", "user", "assistant", "user"}, *contents[5];
  uint32_t tokens[256];
  size_t count = 1 + 2 * below(3), number;
  for (size_t i = 0; i < count; i++) contents[i] = PICK(TEXTS);
  if (!below(8)) roles[count - 1] = PICK(LABELS);
  cbl_status status = cbl_chat_tokens(model, options, roles, contents, count, tokens, 256, &number, NULL, 0);
  CHECK(status == CBL_OK || status == CBL_BAD_ARGUMENT);
  cbl_chat_result result;
  for (int turns = 0; turns < 2; turns++) {
    listener listener = {session, below(8), below(8), 0};
    status = cbl_chat_answer(session, options, roles, contents, count, on_text, &listener, &result, sizeof result);
    CHECK(status == CBL_OK || status == CBL_CONTEXT_FULL || status == CBL_CANCELLED || status == CBL_BAD_ARGUMENT);
    CHECK_OK(cbl_session_clear_cancel(session));
  }
}

/* Tokens of a text and back. */
static void use_text(void) {
  const char *text = PICK(TEXTS);
  uint32_t tokens[128];
  char back[256];
  size_t count, length;
  CHECK_OK(cbl_model_tokenize(model, options, text, strlen(text), tokens, 128, &count, NULL, 0));
  cbl_status status = cbl_model_detokenize(model, tokens, count, back, sizeof back, &length, NULL, 0);
  CHECK_OK(status);
  CHECK(length == strlen(text) && !memcmp(back, text, length));
}

static void use_session(void) {
  cbl_session *session = new_session(model, options), *forked;
  cbl_session_stats stats;
  for (uint64_t n = below(6); n; n--) {
    switch (below(10)) {
      case 0: generate(session); break;
      case 8: converse(session); break;
      case 9: use_text(); break;
      case 6: pull(session); break;
      case 1: cancelled_by_a_thread(session, PICK(TEXTS)); break;
      case 2: save_and_restore(session); break;
      case 3: ask(session); break;
      case 4: use_template(session); break;
      case 5:
        CHECK_OK(cbl_session_fork(session, NULL, &forked));
        generate(forked);
        CHECK_OK(cbl_session_free(forked));
        break;
      default:
        if (cbl_session_position(session)) CHECK_OK(cbl_session_rewind(session, below(cbl_session_position(session))));
        cbl_session_evaluate(session, TOKENS, 3);
    }
    CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
    if (below(2)) CHECK_OK(cbl_session_reset(session));
  }
  CHECK_OK(cbl_session_free(session));
}

static void use_batch(void) {
  cbl_batch *batch;
  const char *prompts[5];
  cbl_status statuses[5];
  cbl_stop_reason reasons[5];
  size_t count = 1 + below(5);
  for (size_t i = 0; i < count; i++) prompts[i] = PICK(TEXTS);
  CHECK_OK(cbl_batch_new(model, options, 1 + below(4), &batch, NULL, 0));
  cbl_status status;
  if (below(2)) {
    status = cbl_batch_generate(batch, options, prompts, count, on_batch_text, NULL, statuses, reasons);
  } else {
    uint64_t generation, steps = below(40);
    cbl_batch_step step;
    bool more = true;
    status = cbl_batch_begin(batch, options, prompts, count, &generation);
    while (!status && more && steps--) {
      status = cbl_batch_next(batch, generation, &step, sizeof step, &more);
      if (!status && more && !below(10)) CHECK_OK(cbl_batch_stop(batch, generation, step.index));
    }
    CHECK_OK(cbl_batch_end(batch, generation));
  }
  CHECK(status == CBL_OK || status == CBL_CONTEXT_FULL);
  CHECK_OK(cbl_batch_free(batch));
}

static void fail(void) {
  char message[256];
  cbl_model *none;
  cbl_options *wrong = new_options();
  cbl_template *template;
  cbl_classifier *classifier;
  const char *twice[2] = {"same", "same"};
  uint32_t tokens[4];
  size_t count;
  CHECK_STATUS(CBL_IO, cbl_model_open(missing_file, NULL, &none, message, sizeof message));
  CHECK_STATUS(CBL_BAD_MODEL, cbl_model_open(broken_file, NULL, &none, message, sizeof message));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(wrong, CBL_OPTION_THREADS, 1000));
  CHECK(*cbl_options_error(wrong));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_template_new("no place", 8, &template, message, sizeof message));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_template_named(model, "nothing", 7, &template, message, sizeof message));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_classifier_new(model, NULL, twice, 2, &classifier, message, sizeof message));
  CHECK_STATUS(CBL_INVALID_UTF8, cbl_model_tokenize(model, NULL, "\xff", 1, tokens, 4, &count, message, sizeof message));
  if (cbl_has_constraints()) {
    /* It may be refused when it is set, or when it is used. */
    cbl_session *session = new_session(model, NULL);
    listener listener = {session, 0, 0, 0};
    cbl_status status = cbl_options_set_string(wrong, CBL_OPTION_REGEX, "(", 1);
    if (!status) status = cbl_generate(session, wrong, "a", 1, on_text, &listener, NULL);
    CHECK_STATUS(CBL_BAD_OPTION, status);
    CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_string(wrong, CBL_OPTION_JSON_SCHEMA, "{", 1));
    CHECK_OK(cbl_session_free(session));
  }
  CHECK_OK(cbl_options_free(wrong));
}

static void reopen(void) {
  cbl_options *opening = new_options();
  CHECK_OK(cbl_options_set_int(opening, CBL_OPTION_ACCESS, (int64_t)below(2)));
  CHECK_OK(cbl_options_set_int(opening, CBL_OPTION_VERIFY, (int64_t)below(2)));
  CHECK_OK(cbl_model_free(model));
  CHECK_OK(cbl_model_open(path, opening, &model, NULL, 0));
  CHECK_OK(cbl_options_free(opening));
}

static void one_round(void) {
  set_options();
  switch (below(8)) {
    case 0: reopen(); break;
    case 1: fail(); break;
    case 2: case 3: use_batch(); break;
    default: use_session();
  }
}

/* ---- What must not grow ---- */

typedef struct {
  long resident, heap; /* KiB */
  long descriptors, threads;
} usage;

static long entries(const char *directory) {
  DIR *open = opendir(directory);
  long count = 0;
  CHECK(open);
  for (struct dirent *entry; (entry = readdir(open));) count += entry->d_name[0] != '.';
  closedir(open);
  return count;
}

/* The model's pages are the system's, and come and go: only what is private counts. */
static usage measure(void) {
  long total, resident, shared;
  malloc_trim(0);
  FILE *statm = fopen("/proc/self/statm", "r");
  CHECK(statm && fscanf(statm, "%ld %ld %ld", &total, &resident, &shared) == 3);
  fclose(statm);
  struct mallinfo2 heap = mallinfo2();
  usage now = {(resident - shared) * (sysconf(_SC_PAGESIZE) / 1024), (long)((heap.uordblks + heap.hblkhd) / 1024),
               entries("/proc/self/fd") - 1, entries("/proc/self/task")}; /* -1: that directory's own */
  return now;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static usage larger(usage a, usage b) {
#define LARGER(field) if (b.field > a.field) a.field = b.field
  LARGER(resident);
  LARGER(heap);
  LARGER(descriptors);
  LARGER(threads);
  return a;
}

int main(int count, char **arguments) {
  CHECK(count == 4 || count == 5);
  path = arguments[1];
  snprintf(saved_file, sizeof saved_file, "%s/soak.saved", arguments[2]);
  snprintf(missing_file, sizeof missing_file, "%s/no such file", arguments[2]);
  snprintf(broken_file, sizeof broken_file, "%s/soak.broken", arguments[2]);
  FILE *broken = fopen(broken_file, "w");
  CHECK(broken && fputs("no model at all, but long enough to be looked at: sixty-four bytes.", broken) >= 0);
  fclose(broken);
  double length = atof(arguments[3]);
  state = count == 5 ? strtoull(arguments[4], NULL, 10) : 1;
  model = open_model(path);

  /* The first third warms up; then every tenth of a second everything is freed and measured. The last third
   * must not need more than the second. */
  double start = seconds(), next = 0;
  usage second = {0}, third = {0};
  long rounds = 0;
  for (double now = 0; now < length; now = seconds() - start, rounds++) {
    one_round();
    if (now < length / 3 || now < next) continue;
    reopen();
    set_options();
    next = now + length / 300;
    if (now < length * 2 / 3) {
      second = larger(second, measure());
    } else {
      third = larger(third, measure());
    }
  }
  bool settled = length >= 60;
  if (settled) {
    printf("%ld rounds in %.0f s. Private memory %ld KiB, then %ld; heap in use %ld KiB, then %ld; "
           "descriptors %ld, then %ld; threads %ld, then %ld\n",
           rounds, length, second.resident, third.resident, second.heap, third.heap, second.descriptors,
           third.descriptors, second.threads, third.threads);
  }
  CHECK(rounds > 10);
  CHECK(!settled || third.resident < second.resident + 1024);
  CHECK(!settled || third.heap < second.heap + 64);
  CHECK(third.descriptors == second.descriptors);
  CHECK(third.threads == second.threads);

  CHECK_OK(cbl_options_free(options));
  CHECK_OK(cbl_model_free(model));
  remove(saved_file); /* if there is one */
  CHECK(!remove(broken_file));
  return 0;
}
