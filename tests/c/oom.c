/* The N-th allocation fails, once or from then on, for every N: calls succeed or return CBL_NO_MEMORY,
 * leave nothing behind, and the next try works. And: no allocation per generated token.
 * Usage: oom MODEL DIRECTORY */
#include "refuse.h"
#include "support.h"

static cbl_model *model;
static cbl_options *options, *threaded, *pooled;
static cbl_session *session;
static cbl_batch *batch;
static char *saved;
static size_t saved_size;
static char file[512];

/* Operations leave things as they were. */
typedef cbl_status (*operation)(void);

static cbl_status make_options(void) {
  cbl_options *made;
  cbl_status status = cbl_options_new(&made);
  if (status == CBL_OK) {
    status = cbl_options_add_stop(made, "stop", 4);
    CHECK_OK(cbl_options_free(made));
  }
  return status;
}

static cbl_status make(cbl_options *with) {
  cbl_session *made;
  cbl_status status = cbl_session_new(model, with, &made, NULL, 0);
  CHECK((status == CBL_OK) == (made != NULL));
  CHECK_OK(cbl_session_free(made));
  return status;
}

static cbl_status make_session(void) { return make(options); }
static cbl_status make_threads(void) { return make(threaded); }
static cbl_status make_pooled(void) { return make(pooled); }

static cbl_status fork_session(void) {
  cbl_session *made;
  cbl_status status = cbl_session_fork(session, NULL, &made);
  CHECK((status == CBL_OK) == (made != NULL));
  CHECK_OK(cbl_session_free(made));
  return status;
}

static cbl_status evaluate(void) {
  CHECK_OK(cbl_session_rewind(session, 3));
  return cbl_session_evaluate(session, TOKENS, 3);
}

static cbl_status sample(void) {
  uint32_t token;
  return cbl_session_sample(session, options, &token);
}

static bool ignore_token(void *user, uint32_t token) { return (void)user, (void)token, true; }
static bool ignore_text(void *user, const char *text, size_t n) {
  return (void)user, (void)text, (void)n, true;
}

static cbl_status generate_tokens(void) {
  CHECK_OK(cbl_session_rewind(session, 3));
  return cbl_generate_tokens(session, options, TOKENS, 3, ignore_token, NULL, NULL);
}

static cbl_status generate_text(void) {
  CHECK_OK(cbl_session_rewind(session, 3));
  return cbl_generate_from_tokens(session, options, TOKENS, 3, ignore_text, NULL, NULL);
}

static cbl_status pull_text(void) {
  CHECK_OK(cbl_session_rewind(session, 3));
  uint64_t generation;
  cbl_step step;
  cbl_stop_reason reason = CBL_STOP_NONE;
  cbl_status status =
      cbl_generation_begin_from_tokens(session, options, TOKENS, 3, &generation);
  while (status == CBL_OK && reason == CBL_STOP_NONE) {
    status = cbl_generation_next(session, generation, &step, sizeof step, &reason);
  }
  CHECK_OK(cbl_generation_end(session, generation, NULL));
  return status;
}

static const size_t LENGTHS[3] = {3, 1, 2}, SEQUENCES[2] = {0, 1};
static const uint32_t LISTS[6] = {5, 6, 7, 5, 5, 8};

static cbl_status score(void) {
  double sums[3], each[6];
  CHECK_OK(cbl_session_rewind(session, 3));
  return cbl_score_tokens(session, TOKENS, 3, LISTS, LENGTHS, 3, sums, each);
}

static cbl_status embed(void) {
  static float embedding[4096];
  size_t width;
  return cbl_embed_tokens(session, options, TOKENS, 3, embedding, 4096, &width);
}

static cbl_status make_batch_on(cbl_options *with) {
  cbl_batch *made;
  cbl_status status = cbl_batch_new(model, with, 3, &made, NULL, 0);
  CHECK((status == CBL_OK) == (made != NULL));
  CHECK_OK(cbl_batch_free(made));
  return status;
}

static cbl_status make_batch(void) { return make_batch_on(options); }
static cbl_status make_pooled_batch(void) { return make_batch_on(pooled); }
static cbl_status make_threaded_batch(void) { return make_batch_on(threaded); }

static cbl_status plan_batch(void) {
  cbl_memory_plan plan;
  return cbl_model_plan_batch(model, options, 3, &plan, sizeof plan, NULL, 0);
}

static cbl_status evaluate_batch(void) {
  uint32_t token;
  for (size_t i = 0; i < 2; i++) CHECK_OK(cbl_batch_rewind(batch, i, 0));
  cbl_status status = cbl_batch_evaluate(batch, SEQUENCES, LENGTHS, 2, LISTS);
  if (!status) status = cbl_batch_sample(batch, 1, options, &token);
  return status;
}

static bool ignore_batch_token(void *user, size_t index, uint32_t token) {
  return (void)user, (void)index, (void)token, true;
}

static cbl_status generate_batch(void) {
  return cbl_batch_generate_tokens(batch, options, LISTS, LENGTHS, 3, ignore_batch_token, NULL, NULL,
                                   NULL);
}

static cbl_status pull_batch(void) {
  uint64_t generation;
  cbl_batch_step step;
  bool more = true;
  cbl_status status =
      cbl_batch_begin_from_tokens(batch, options, LISTS, LENGTHS, 3, &generation);
  while (status == CBL_OK && more) {
    status = cbl_batch_next(batch, generation, &step, sizeof step, &more);
    if (status == CBL_OK && step.status != CBL_OK) status = step.status;
  }
  CHECK_OK(cbl_batch_end(batch, generation));
  return status;
}

static cbl_status bias(void) {
  CHECK_OK(cbl_options_clear_logit_biases(options));
  cbl_status status = cbl_options_set_logit_bias(options, 5, 1);
  return status ? status : cbl_options_set_logit_bias(options, 6, -1);
}

static cbl_status find_top(void) {
  const float *logits;
  size_t count, found;
  uint32_t tokens[5];
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 1));
  CHECK_OK(cbl_session_logits(session, &logits, &count));
  cbl_status status = cbl_top_tokens(logits, count, tokens, NULL, 5, &found);
  CHECK_OK(cbl_session_rewind(session, 3));
  return status;
}

static cbl_status save(void) {
  CHECK_OK(cbl_session_restore(session, saved, saved_size));
  size_t size;
  return cbl_session_save(session, saved, saved_size, &size);
}

static cbl_status restore(void) { return cbl_session_restore(session, saved, saved_size); }
static cbl_status save_file(void) { return cbl_session_save_file(session, file); }
static cbl_status restore_file(void) { return cbl_session_restore_file(session, file); }

static cbl_status plan_and_look(void) {
  cbl_memory_plan plan;
  cbl_model_info info;
  cbl_session_stats stats;
  cbl_status status = cbl_model_plan(model, options, &plan, sizeof plan, NULL, 0);
  if (!status) status = cbl_model_get_info(model, &info, sizeof info);
  if (!status) status = cbl_session_get_stats(session, &stats, sizeof stats);
  return status;
}

/* Returns how many allocations the operation makes. */
static long check_every_failure(operation run, bool starts_threads) {
  CHECK_OK(run());
  long allocations = -1;
  for (int mode = 0; mode < 2; mode++) {
    for (long n = 1;; n++) {
      long before = live;
      calls = 0;
      for_ever = mode == 1;
      fail_at = n;
      cbl_status status = run();
      long made = calls;
      fail_at = 0;
      CHECK(live == before);
      if (status != CBL_OK && status != CBL_NO_MEMORY) {
        /* The system does not say why it refuses a thread. */
        CHECK(starts_threads && status == CBL_NO_THREADS);
      }
      if (made < n) {
        CHECK_OK(status);
        allocations = made;
        break;
      }
      CHECK_OK(run());
      CHECK(live == before);
    }
  }
  return allocations;
}

static long allocations_of(operation run, int64_t tokens) {
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_MAX_TOKENS, tokens));
  long before = calls;
  CHECK_OK(run());
  return calls - before;
}

static void serial(void *user, size_t count, cbl_task task, void *context) {
  (void)user;
  for (size_t i = 0; i < count; i++) task(context, i);
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  snprintf(file, sizeof file, "%s/oom.saved", arguments[2]);
  model = open_model(arguments[1]);
  options = new_options(), threaded = new_options(), pooled = new_options();
  cbl_options *all[3] = {options, threaded, pooled};
  for (int i = 0; i < 3; i++) {
    CHECK_OK(cbl_options_set_int(all[i], CBL_OPTION_CONTEXT, 64));
    CHECK_OK(cbl_options_set_int(all[i], CBL_OPTION_MAX_TOKENS, 4));
    CHECK_OK(cbl_options_set_int(all[i], CBL_OPTION_IGNORE_END_OF_TEXT, 1));
    CHECK_OK(cbl_options_set_float(all[i], CBL_OPTION_TEMPERATURE, 0.8));
    CHECK_OK(cbl_options_set_float(all[i], CBL_OPTION_TOP_P, 0.9));
    CHECK_OK(cbl_options_set_float(all[i], CBL_OPTION_REPETITION_PENALTY, 1.2));
  }
  CHECK_OK(cbl_options_set_int(threaded, CBL_OPTION_THREADS, 3));
  CHECK_OK(cbl_options_set_pool(pooled, serial, 2, NULL));
  CHECK_OK(cbl_batch_new(model, options, 2, &batch, NULL, 0));
  session = new_session(model, options);
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_session_save(session, NULL, 0, &saved_size));
  saved = malloc(saved_size);
  CHECK_OK(cbl_session_save(session, saved, saved_size, &saved_size));

  /* The counter counts, and failures happen. */
  CHECK(check_every_failure(make_options, false) >= 2);
  CHECK(check_every_failure(make_session, false) >= 2);
  CHECK(check_every_failure(make_pooled, false) >= 3);
  CHECK(check_every_failure(make_threads, true) >= 4);
  CHECK(check_every_failure(fork_session, false) >= 2);
  CHECK(check_every_failure(generate_text, false) >= 2);
  CHECK(check_every_failure(pull_text, false) >= 3);
  CHECK(check_every_failure(make_batch, false) >= 4);
  CHECK(check_every_failure(make_pooled_batch, false) >= 5);
  CHECK(check_every_failure(make_threaded_batch, true) >= 6);
  CHECK(check_every_failure(plan_batch, false) == 0);
  CHECK(check_every_failure(evaluate_batch, false) == 1);
  CHECK(check_every_failure(generate_batch, false) >= 5);
  CHECK(check_every_failure(pull_batch, false) >= 5);
  /* Each request has its own stop strings and biases. */
  CHECK_OK(cbl_options_add_stop(options, "stop", 4));
  CHECK_OK(bias());
  CHECK(check_every_failure(bias, false) == 0);
  CHECK(check_every_failure(generate_batch, false) >= 8);
  CHECK_OK(cbl_options_clear_stops(options));
  CHECK(check_every_failure(find_top, false) == 1);
  CHECK(check_every_failure(score, false) >= 8);
  CHECK(check_every_failure(embed, false) == 1);
  /* These allocate nothing at all. */
  CHECK(check_every_failure(evaluate, false) == 0);
  CHECK(check_every_failure(sample, false) == 0);
  CHECK(check_every_failure(generate_tokens, false) == 0);
  CHECK(check_every_failure(plan_and_look, false) == 0);
  CHECK(check_every_failure(restore, false) == 0);
  CHECK(check_every_failure(save, false) == 0);
  check_every_failure(save_file, false);
  check_every_failure(restore_file, false);

  /* Text streaming allocates at its start, and nothing per token. */
  CHECK(allocations_of(generate_text, 2) == allocations_of(generate_text, 40));
  CHECK(allocations_of(pull_text, 2) == allocations_of(pull_text, 40));
  CHECK(allocations_of(generate_tokens, 40) == 0);

  free(saved);
  CHECK(!remove(file));
  for (int i = 0; i < 3; i++) CHECK_OK(cbl_options_free(all[i]));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_batch_free(batch));
  CHECK_OK(cbl_model_free(model));
  return 0;
}
