/* What the generated programs have in common: handles, and arguments for every function.
 * Usage: PROGRAM MODEL DIRECTORY */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
  cbl_options *options, *spare_options;
  cbl_model *model, *spare_model;
  cbl_session *session, *spare_session;
  cbl_classifier *classifier, *spare_classifier;
  cbl_batch *batch, *spare_batch;
  cbl_template *template, *spare_template;
  uint64_t generation, batch_generation;
} f;

/* The fixture's model is opened from `fixture_path`, with options by `variant`. */
static const char *model_path, *fixture_path;
static enum { PLAIN, DRAWN_ON_A_POOL, JSON_ON_THREADS, VARIANTS } variant;
static char saved_path[512], message[256], text_buffer[256];
static void *model_bytes;
static size_t model_size, saved_size, count;
static int model_fd;
static char saved[1 << 20];
static _Alignas(64) char arena[1 << 24];
static cbl_model_info info;
static cbl_memory_plan plan;
static cbl_session_stats stats;
static cbl_template_result applied;
static cbl_chat_result answered;
static cbl_step step;
static cbl_batch_step batch_step;
static bool more;
static cbl_stop_reason reason;
static uint32_t token_buffer[64];
static const uint32_t *tokens;
static const float *logits;
static const char *bytes;
static const char *const TEXTS[2] = {" a", " b"}, *const ROLES[2] = {"system", "user"};
static const size_t LENGTHS[2] = {1, 2}, SEQUENCES[2] = {0, 1};
static const float LOGITS[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const char TEMPLATE[] = "max-tokens: 2\n---\na {text} b";
static size_t sizes[2];
static double numbers[64], more_numbers[64];
static float floats[4096];
static cbl_status statuses[2];
static cbl_stop_reason reasons[2];

/* What calls gave and callbacks were given, as one number (FNV-1a); and what every callback does first. */
static uint64_t seen;
static void (*at_callback)(void);

static void see(const void *data, size_t size) {
  const unsigned char *at = data;
  for (size_t i = 0; i < size; i++) seen = (seen ^ at[i]) * 0x100000001b3u;
}

static bool see_piece(size_t index, const void *data, size_t size) {
  if (at_callback) at_callback();
  see(&index, sizeof index);
  see(data, size);
  return true;
}

static bool see_text(void *u, const char *t, size_t n) { return (void)u, see_piece(0, t, n); }
static bool see_token(void *u, uint32_t t) { return (void)u, see_piece(0, &t, sizeof t); }
static bool see_logits(void *u, size_t p, const float *l, size_t n) {
  return (void)u, see_piece(p, l, n * sizeof *l);
}
static bool see_batch_text(void *u, size_t i, const char *t, size_t n) {
  return (void)u, see_piece(i, t, n);
}
static bool see_batch_token(void *u, size_t i, uint32_t t) {
  return (void)u, see_piece(i, &t, sizeof t);
}
static bool see_step(void *u, const cbl_step *s) {
  see_piece((size_t)s->token, s->logits, s->logits_count * sizeof *s->logits);
  return see_text(u, s->text, s->length);
}
static void see_log(void *u, int32_t l, const char *m) { (void)u, see_piece((size_t)l, m, strlen(m)); }
static bool see_progress(void *u, int32_t s, uint64_t d, uint64_t t) {
  const uint64_t both[2] = {d, t};
  return (void)u, see_piece((size_t)s, both, sizeof both);
}
static void serial(void *u, size_t n, cbl_task task, void *context) {
  (void)u;
  if (at_callback) at_callback();
  for (size_t i = 0; i < n; i++) task(context, i);
}

static cbl_batch *new_batch(void) {
  cbl_batch *batch;
  CHECK_OK(cbl_batch_new(f.model, f.options, 2, &batch, message, sizeof message));
  return batch;
}

/* A build that cannot tokenize has none: another handle is as good where no further is looked. */
static cbl_classifier *new_classifier(void) {
  cbl_classifier *classifier;
  if (!cbl_has_text()) return (cbl_classifier *)f.session;
  CHECK_OK(cbl_classifier_new(f.model, f.options, TEXTS, 2, &classifier, message, sizeof message));
  return classifier;
}

static cbl_template *new_template(void) {
  cbl_template *template;
  if (!cbl_has_text()) return (cbl_template *)f.session;
  CHECK_OK(cbl_template_new(TEMPLATE, strlen(TEMPLATE), &template, message, sizeof message));
  return template;
}

static void set_variant(void) {
  static const char SCHEMA[] =
      "{\"type\": \"object\", \"properties\": {\"n\": {\"type\": \"integer\", \"minimum\": 3, \"maximum\": "
      "99}}, \"required\": [\"n\"], \"additionalProperties\": false}";
  switch (variant) {
    case DRAWN_ON_A_POOL:
      CHECK_OK(cbl_options_set_float(f.options, CBL_OPTION_TEMPERATURE, 0.8));
      CHECK_OK(cbl_options_set_float(f.options, CBL_OPTION_TOP_P, 0.9));
      CHECK_OK(cbl_options_set_float(f.options, CBL_OPTION_REPETITION_PENALTY, 1.1));
      CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_SEED, 5));
      CHECK_OK(cbl_options_set_log(f.options, see_log, NULL));
      CHECK_OK(cbl_options_set_progress(f.options, see_progress, NULL));
      CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_VERIFY, 1));
      CHECK_OK(cbl_options_set_pool(f.options, serial, 2, NULL));
      if (!cbl_has_text()) break;
      CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_CALIBRATION, CBL_CALIBRATION_CONTENT_FREE));
      break;
    case JSON_ON_THREADS:
      CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_THREADS, 2));
      CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_MAX_TOKENS, 8));
      if (!cbl_has_constraints()) break;
      CHECK_OK(cbl_options_set_string(f.options, CBL_OPTION_JSON_SCHEMA, SCHEMA, strlen(SCHEMA)));
      break;
    default: break;
  }
}

static uint64_t new_batch_generation(void) {
  uint64_t generation;
  CHECK_OK(cbl_batch_begin_from_tokens(f.batch, f.options, TOKENS, LENGTHS, 2, &generation));
  return generation;
}

static uint64_t new_generation(void) {
  uint64_t generation;
  CHECK_OK(cbl_generation_begin_from_tokens(f.session, f.options, TOKENS, 2, &generation));
  return generation;
}

static void open_fixture(void) {
  f.options = new_options();
  CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_CONTEXT, 32));
  CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_ALL_LOGITS, 1));
  CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_CHUNK, 4));
  CHECK_OK(cbl_options_set_int(f.options, CBL_OPTION_MAX_TOKENS, 2));
  set_variant();
  f.model = open_model(fixture_path);
  f.session = new_session(f.model, f.options);
  CHECK_OK(cbl_session_evaluate(f.session, TOKENS, 2));
  f.batch = new_batch();
  CHECK_OK(cbl_batch_evaluate(f.batch, SEQUENCES, LENGTHS, 2, TOKENS));
}

static void close_fixture(void) {
  CHECK_OK(cbl_session_free(f.session));
  CHECK_OK(cbl_session_free(f.spare_session));
  if (cbl_has_text()) {
    CHECK_OK(cbl_classifier_free(f.classifier));
    CHECK_OK(cbl_classifier_free(f.spare_classifier));
    CHECK_OK(cbl_template_free(f.template));
    CHECK_OK(cbl_template_free(f.spare_template));
  }
  CHECK_OK(cbl_batch_free(f.batch));
  CHECK_OK(cbl_batch_free(f.spare_batch));
  CHECK_OK(cbl_model_free(f.model));
  CHECK_OK(cbl_model_free(f.spare_model));
  CHECK_OK(cbl_options_free(f.options));
  CHECK_OK(cbl_options_free(f.spare_options));
  memset(&f, 0, sizeof f);
}

static void set_up(int argument_count, char **arguments) {
  CHECK(argument_count == 3);
  model_path = fixture_path = arguments[1];
  snprintf(saved_path, sizeof saved_path, "%s/calls.saved", arguments[2]);
  struct stat status;
  model_fd = open(model_path, O_RDONLY);
  CHECK(model_fd >= 0 && !fstat(model_fd, &status));
  model_size = (size_t)status.st_size;
  model_bytes = aligned_alloc(64, (model_size + 63) / 64 * 64);
  CHECK(pread(model_fd, model_bytes, model_size, 0) == (ssize_t)model_size);
  open_fixture();
  CHECK_OK(cbl_session_save(f.session, saved, sizeof saved, &saved_size));
  CHECK_OK(cbl_session_save_file(f.session, saved_path));
  close_fixture();
}

static int tear_down(void) {
  free(model_bytes);
  close(model_fd);
  return unlink(saved_path);
}

