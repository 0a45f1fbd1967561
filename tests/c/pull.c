/* What the header promises of generation on demand. Usage: pull MODEL DIRECTORY */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path, *directory;
static cbl_model *model;

/* Options for 12 tokens. */
static cbl_options *twelve(void) {
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 12));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_IGNORE_END_OF_TEXT, 1));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  return o;
}

static uint64_t begin(cbl_session *session, const cbl_options *options) {
  uint64_t generation;
  CHECK_OK(cbl_generation_begin_from_tokens(session, options, TOKENS, 3, &generation));
  CHECK(generation != 0);
  return generation;
}

/* One step that is there. */
static cbl_step next(cbl_session *session, uint64_t generation) {
  cbl_step step;
  cbl_stop_reason reason;
  CHECK_OK(cbl_generation_next(session, generation, &step, sizeof step, &reason));
  CHECK(reason == CBL_STOP_NONE && (step.token >= 0 || step.length > 0));
  return step;
}

/* All steps that are left; returns why there are no more. */
static cbl_stop_reason pull(cbl_session *session, uint64_t generation, collected *all) {
  for (;;) {
    cbl_step step;
    cbl_stop_reason reason;
    CHECK_OK(cbl_generation_next(session, generation, &step, sizeof step, &reason));
    if (reason != CBL_STOP_NONE) {
      CHECK(step.token == -1 && step.length == 0 && !step.logits);
      return reason;
    }
    if (step.length) collect_text(all, step.text, step.length);
    if (step.token >= 0) collect_token(all, (uint32_t)step.token);
  }
}

/* Ends with this status, and nothing comes after that. */
static void check_gone(cbl_session *session, uint64_t generation) {
  cbl_step step = {7, "x", 1, NULL, 5};
  cbl_stop_reason reason = CBL_STOP_STRING;
  CHECK_STATUS(CBL_NO_GENERATION, cbl_generation_next(session, generation, &step, sizeof step, &reason));
  CHECK(reason == CBL_STOP_NONE && step.token == -1 && step.length == 0 && !step.logits);
  CHECK(strstr(cbl_session_error(session), "begin another"));
  CHECK_OK(cbl_generation_end(session, generation, &reason));
  CHECK(reason == CBL_STOP_NONE);
}

/* The same as by callback: tokens, text, reason, what the session holds, figures. */
static void compare(cbl_options *o, cbl_session *pushed, cbl_session *pulled) {
  collected text = {0}, all = {0};
  cbl_stop_reason reason, ended;
  CHECK_OK(cbl_session_reset(pushed));
  CHECK_OK(cbl_generate_from_tokens(pushed, o, TOKENS, 3, collect_text, &text, &reason));
  CHECK_OK(cbl_session_reset(pulled));
  uint64_t generation = begin(pulled, o);
  CHECK(cbl_session_position(pulled) == 0);
  CHECK(pull(pulled, generation, &all) == reason);
  CHECK(pull(pulled, generation, &all) == reason);
  CHECK(!strcmp(all.text, text.text) && all.length == text.length);
  CHECK(cbl_session_position(pulled) == cbl_session_position(pushed));
  cbl_session_stats a, b;
  CHECK_OK(cbl_session_get_stats(pushed, &a, sizeof a));
  CHECK_OK(cbl_session_get_stats(pulled, &b, sizeof b));
  CHECK(a.generated_tokens == b.generated_tokens && a.pending_token == b.pending_token);
  CHECK(a.evaluated_tokens == b.evaluated_tokens && b.stop_reason == reason);
  CHECK(b.prompt_tokens == 3 && b.prompt_seconds > 0 && all.count == b.generated_tokens);
  CHECK_OK(cbl_generation_end(pulled, generation, &ended));
  CHECK(ended == reason);
  check_gone(pulled, generation);
  CHECK_OK(cbl_session_get_stats(pulled, &b, sizeof b));
  CHECK(a.evaluated_tokens == b.evaluated_tokens && b.stop_reason == reason);
}

static void same_as_by_callback(void) {
  cbl_options *o = twelve();
  cbl_session *pushed = new_session(model, o), *pulled = new_session(model, o);
  compare(o, pushed, pulled);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 0));
  compare(o, pushed, pulled);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1000));
  compare(o, pushed, pulled);
  CHECK_OK(cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, 0.9));
  CHECK_OK(cbl_options_set_float(o, CBL_OPTION_REPETITION_PENALTY, 1.3));
  compare(o, pushed, pulled);

  /* With stop strings: whatever text appeared, any three bytes of it that are whole characters. */
  collected text = {0};
  cbl_session *whole = new_session(model, o);
  CHECK_OK(cbl_generate_from_tokens(whole, o, TOKENS, 3, collect_text, &text, NULL));
  CHECK_OK(cbl_session_free(whole));
  for (size_t at = 0; at + 3 <= text.length && at < 24; at++) {
    CHECK_OK(cbl_options_clear_stops(o));
    if (cbl_options_add_stop(o, text.text + at, 3) == CBL_OK) compare(o, pushed, pulled);
  }
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(pushed));
  CHECK_OK(cbl_session_free(pulled));
}

static void from_text(void) {
  if (!cbl_has_text()) return;
  cbl_options *o = twelve();
  cbl_session *session = new_session(model, o);
  collected text = {0}, all = {0};
  uint64_t generation;
  CHECK_OK(cbl_generate(session, o, "Once upon a time", 16, collect_text, &text, NULL));
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generation_begin(session, o, "Once upon a time", 16, &generation));
  CHECK(pull(session, generation, &all) == CBL_STOP_MAX_TOKENS);
  CHECK(!strcmp(all.text, text.text) && all.count == 12);
  generation = 9;
  CHECK_STATUS(CBL_INVALID_UTF8, cbl_generation_begin(session, o, "\x80", 1, &generation));
  CHECK(generation == 0);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

static void bad_beginnings(void) {
  cbl_options *o = twelve();
  cbl_session *session = new_session(model, o);
  uint64_t generation = begin(session, o), none = 9;
  const uint32_t bad = 1u << 30;
  /* They end what went on before, too. */
  CHECK_STATUS(CBL_BAD_TOKEN, cbl_generation_begin_from_tokens(session, o, &bad, 1, &none));
  CHECK(none == 0);
  check_gone(session, generation);
  check_gone(session, 0);
  CHECK_STATUS(CBL_CONTEXT_FULL,
               cbl_generation_begin_from_tokens(session, o, TOKENS, SIZE_MAX, &none));
  check_gone(session, none);
  /* An empty prompt starts a text. */
  CHECK_OK(cbl_generation_begin_from_tokens(session, o, NULL, 0, &generation));
  collected all = {0};
  CHECK(pull(session, generation, &all) == CBL_STOP_MAX_TOKENS);
  CHECK(cbl_session_position(session) == 12);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

static void what_leaves_it(void) {
  cbl_options *o = twelve();
  cbl_session *alone = new_session(model, o), *session = new_session(model, o), *fork, *forked;
  collected expected = {0}, found = {0}, other = {0};
  CHECK(pull(alone, begin(alone, o), &expected) == CBL_STOP_MAX_TOKENS);
  uint64_t generation = begin(session, o);
  /* The options may change and go. */
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1));
  CHECK_OK(cbl_options_free(o));
  for (size_t i = 0; i < 5; i++) {
    cbl_step step = next(session, generation);
    if (step.length) collect_text(&found, step.text, step.length);
    collect_token(&found, (uint32_t)step.token);
    CHECK(step.logits && step.logits_count > 256);
    const float *logits;
    const uint32_t *tokens;
    size_t count;
    uint32_t token;
    cbl_session_stats stats;
    CHECK_OK(cbl_session_logits(session, &logits, &count));
    CHECK(logits == step.logits && count == step.logits_count);
    CHECK_OK(cbl_session_sample(session, NULL, &token));
    CHECK(token == (uint32_t)step.token);
    CHECK_OK(cbl_session_tokens(session, &tokens, &count));
    CHECK(count == 3 + i && cbl_session_position(session) == count);
    CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
    CHECK(stats.stop_reason == CBL_STOP_NONE && stats.pending_token == step.token);
    CHECK(stats.generated_tokens == i + 1 && stats.evaluated_tokens == count);
    CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_session_save(session, NULL, 0, &count));
    CHECK_OK(cbl_session_clear_cancel(session));
    CHECK(*cbl_session_error(session));
  }
  char file[512];
  snprintf(file, sizeof file, "%s/pull.saved", directory);
  CHECK_OK(cbl_session_save_file(session, file));
  CHECK(!unlink(file));
  /* A fork has no generation, but may begin one. */
  CHECK_OK(cbl_session_fork(session, NULL, &fork));
  CHECK_OK(cbl_session_fork(session, NULL, &forked));
  check_gone(fork, generation);
  CHECK_OK(cbl_session_free(fork));
  uint64_t beside = begin(forked, NULL);
  next(forked, beside);
  check_gone(session, beside);
  CHECK(pull(session, generation, &found) == CBL_STOP_MAX_TOKENS);
  CHECK(!strcmp(found.text, expected.text) && found.count == 12);
  CHECK(!memcmp(found.tokens, expected.tokens, 12 * sizeof *found.tokens));
  CHECK(pull(forked, beside, &other) != CBL_STOP_NONE);
  /* Freed in the middle. */
  next(alone, begin(alone, NULL));
  CHECK_OK(cbl_session_free(alone));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_session_free(forked));
}

static bool ignore_token(void *user, uint32_t token) { return (void)user, (void)token, true; }

static void what_ends_it(void) {
  cbl_options *o = twelve();
  cbl_session *session = new_session(model, o);
  static char saved[1 << 20];
  static float embedding[4096];
  static const size_t LENGTHS[1] = {1};
  size_t size;
  double sum;
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 1));
  CHECK_OK(cbl_session_save(session, saved, sizeof saved, &size));
#define ENDS(call) \
  do { \
    CHECK_OK(cbl_session_reset(session)); \
    uint64_t generation = begin(session, o); \
    next(session, generation); \
    (void)(call); \
    check_gone(session, generation); \
  } while (0)
  ENDS(cbl_session_evaluate(session, TOKENS, 1));
  ENDS(cbl_session_evaluate(session, NULL, 1)); /* It fails. */
  ENDS(cbl_session_reset(session));
  ENDS(cbl_session_rewind(session, 1));
  ENDS(cbl_session_rewind(session, 1000));
  ENDS(cbl_session_restore(session, saved, size));
  ENDS(cbl_generate_tokens(session, o, TOKENS, 1, ignore_token, NULL, NULL));
  ENDS(cbl_score_tokens(session, TOKENS, 1, TOKENS, LENGTHS, 1, &sum, NULL));
  ENDS(cbl_embed_tokens(session, o, TOKENS, 1, embedding, 4096, &size));
  ENDS(begin(session, o));
  ENDS(cbl_generation_end(session, generation, NULL));

  /* Ended by hand: the figures are there, and the last token can be evaluated. */
  CHECK_OK(cbl_session_reset(session));
  uint64_t generation = begin(session, o), later;
  collected first = {0}, rest = {0}, expected = {0};
  for (size_t i = 0; i < 5; i++) collect_token(&first, (uint32_t)next(session, generation).token);
  cbl_stop_reason reason;
  CHECK_OK(cbl_generation_end(session, generation, &reason));
  CHECK(reason == CBL_STOP_CANCELLED && cbl_session_position(session) == 7);
  cbl_session_stats stats;
  CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
  CHECK(stats.stop_reason == CBL_STOP_CANCELLED && stats.generated_tokens == 5);
  CHECK(stats.pending_token == first.tokens[4]);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 7));
  CHECK_OK(cbl_generation_begin_from_tokens(session, o, &first.tokens[4], 1, &later));
  check_gone(session, generation);
  CHECK(later != generation && pull(session, later, &rest) == CBL_STOP_MAX_TOKENS);
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 12));
  CHECK(pull(session, begin(session, o), &expected) == CBL_STOP_MAX_TOKENS);
  CHECK(!memcmp(expected.tokens, first.tokens, 5 * sizeof *first.tokens));
  CHECK(!memcmp(expected.tokens + 5, rest.tokens, 7 * sizeof *first.tokens));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

static void cancelled(void) {
  cbl_options *o = twelve();
  cbl_session *session = new_session(model, o);
  cbl_step step;
  cbl_stop_reason reason;
  /* Before the first step, and between two. */
  for (int steps = 0; steps < 4; steps++) {
    CHECK_OK(cbl_session_reset(session));
    uint64_t generation = begin(session, o);
    for (int i = 0; i < steps; i++) next(session, generation);
    size_t position = cbl_session_position(session);
    CHECK_OK(cbl_session_cancel(session));
    for (int twice = 0; twice < 2; twice++) {
      CHECK_OK(cbl_generation_next(session, generation, &step, sizeof step, &reason));
      CHECK(reason == CBL_STOP_CANCELLED && step.token == -1 && step.length == 0);
    }
    CHECK(cbl_session_position(session) == position);
    /* The request is used up. */
    CHECK_OK(cbl_session_evaluate(session, TOKENS, 1));

    /* The end takes it back. */
    generation = begin(session, o);
    next(session, generation);
    CHECK_OK(cbl_session_cancel(session));
    CHECK_OK(cbl_generation_end(session, generation, NULL));
    CHECK_OK(cbl_session_evaluate(session, TOKENS, 1));
  }
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));

  cbl_batch *batch;
  static const size_t SEQUENCES[1] = {0}, LENGTHS[1] = {3};
  CHECK_OK(cbl_batch_new(model, NULL, 1, &batch, NULL, 0));
  CHECK_OK(cbl_batch_cancel(batch));
  CHECK_STATUS(CBL_CANCELLED, cbl_batch_evaluate(batch, SEQUENCES, LENGTHS, 1, TOKENS));
  CHECK_OK(cbl_batch_cancel(batch));
  CHECK_OK(cbl_batch_clear_cancel(batch));
  CHECK_OK(cbl_batch_evaluate(batch, SEQUENCES, LENGTHS, 1, TOKENS));
  CHECK_OK(cbl_batch_free(batch));
}

static void steps_grow(void) {
  cbl_options *o = twelve();
  cbl_session *session = new_session(model, o);
  uint64_t generation = begin(session, o);
  struct {
    cbl_step step;
    char later[16];
  } grown;
  cbl_stop_reason reason;
  memset(&grown, 7, sizeof grown);
  CHECK_OK(cbl_generation_next(session, generation, &grown.step, sizeof grown, &reason));
  for (size_t i = 0; i < sizeof grown.later; i++) CHECK(grown.later[i] == 0);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_generation_next(session, generation, &grown.step, 8, &reason));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_generation_next(session, generation, &grown.step, sizeof grown, NULL));
  /* Nothing was lost. */
  cbl_step second = next(session, generation);
  CHECK(second.token >= 0 && cbl_session_position(session) == 4);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

static void constrained(void) {
  if (!cbl_has_constraints()) return;
  cbl_options *o = twelve();
  cbl_session *session = new_session(model, o);
  CHECK_OK(cbl_options_set_string(o, CBL_OPTION_CHOICES, "seven\nseven thirty-five", 23));
  collected pushed = {0}, pulled = {0};
  cbl_stop_reason reason;
  CHECK_OK(cbl_generate_from_tokens(session, o, TOKENS, 3, collect_text, &pushed, &reason));
  CHECK(reason == CBL_STOP_COMPLETE);
  CHECK_OK(cbl_session_reset(session));
  CHECK(pull(session, begin(session, o), &pulled) == CBL_STOP_COMPLETE);
  CHECK(!strcmp(pushed.text, pulled.text) && strstr(pulled.text, "seven"));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

static void the_file_changes(void) {
  char copy[512];
  snprintf(copy, sizeof copy, "%s/pull.cbl", directory);
  FILE *from = fopen(path, "rb"), *to = fopen(copy, "wb");
  CHECK(from && to);
  for (int c; (c = getc(from)) != EOF;) putc(c, to);
  fclose(from), fclose(to);
  cbl_model *mapped = open_model(copy);
  cbl_session *session = new_session(mapped, NULL);
  CHECK_OK(cbl_model_free(mapped));
  uint64_t generation = begin(session, NULL);
  next(session, generation);
  int fd = open(copy, O_WRONLY | O_APPEND);
  CHECK(fd >= 0 && write(fd, "x", 1) == 1);
  close(fd);
  cbl_step step;
  cbl_stop_reason reason;
  CHECK_STATUS(CBL_MODEL_CHANGED,
               cbl_generation_next(session, generation, &step, sizeof step, &reason));
  CHECK(step.token == -1 && reason == CBL_STOP_NONE);
  check_gone(session, generation);
  CHECK(!unlink(copy));
  CHECK_OK(cbl_session_free(session));
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  path = arguments[1], directory = arguments[2];
  model = open_model(path);
  same_as_by_callback();
  from_text();
  bad_beginnings();
  what_leaves_it();
  what_ends_it();
  cancelled();
  steps_grow();
  constrained();
  the_file_changes();
  CHECK_OK(cbl_model_free(model));
  return 0;
}
