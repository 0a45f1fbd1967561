/* What the header promises of scores, embeddings, classification and batches. Usage: tasks MODEL DIRECTORY */
#include "support.h"

#include <math.h>
#include <pthread.h>

static const char *path;
static const char STORY[] = "Once upon a time";

/* The logarithm of a token's probability by the last token's logits. */
static double log_probability(cbl_session *session, uint32_t token) {
  const float *logits;
  size_t count;
  CHECK_OK(cbl_session_logits(session, &logits, &count));
  double sum = 0, most = logits[0];
  for (size_t i = 0; i < count; i++) most = logits[i] > most ? logits[i] : most;
  for (size_t i = 0; i < count; i++) sum += exp(logits[i] - most);
  return logits[token] - most - log(sum);
}

static void scores(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  const uint32_t lists[] = {5, 6, 7, 5, 8};
  const size_t lengths[] = {3, 2};
  double sums[2], each[5];
  CHECK_OK(cbl_score_tokens(session, TOKENS, 3, lists, lengths, 2, sums, each));
  CHECK(cbl_session_position(session) == 3);
  cbl_session *other = new_session(model, NULL);
  for (size_t i = 0, at = 0; i < 2; i++) {
    double sum = 0;
    CHECK_OK(cbl_session_reset(other));
    CHECK_OK(cbl_session_evaluate(other, TOKENS, 3));
    for (size_t end = at + lengths[i]; at < end; at++) {
      CHECK(fabs(log_probability(other, lists[at]) - each[at]) < 1e-6);
      sum += each[at];
      CHECK_OK(cbl_session_evaluate(other, &lists[at], 1));
    }
    CHECK(sum == sums[i]);
  }
  /* Behind what the session holds, once more. */
  double again[2];
  CHECK_OK(cbl_score_tokens(session, NULL, 0, lists, lengths, 2, again, NULL));
  CHECK(!memcmp(sums, again, sizeof sums) && cbl_session_position(session) == 3);

  static const size_t none[2] = {1, 0}, absurd[2] = {SIZE_MAX, 2};
  static const uint32_t foreign[2] = {5, UINT32_MAX};
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_score_tokens(session, NULL, 0, lists, none, 2, again, NULL));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_score_tokens(session, NULL, 0, lists, absurd, 2, again, NULL));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_score_tokens(session, NULL, 0, lists, lengths, 0, again, NULL));
  CHECK_STATUS(CBL_BAD_TOKEN, cbl_score_tokens(session, NULL, 0, foreign, lengths + 1, 1, again, NULL));
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_score_tokens(session, TOKENS, 65, lists, lengths, 2, again, NULL));
  CHECK(!memcmp(sums, again, sizeof sums) && cbl_session_position(session) == 3);

  /* Text: the same as its tokens. */
  const char *const continuations[2] = {" there was", " bicycle"}, *const bad[2] = {"a", "\xff"};
  uint32_t tokens[32];
  size_t sizes[2], counted[2], prompt, total = 0;
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_score(session, NULL, STORY, strlen(STORY), continuations, 2, sums, sizes));
  CHECK(sums[0] > sums[1] && sums[1] < 0);
  uint32_t start[16];
  CHECK_OK(cbl_model_tokenize(model, NULL, STORY, strlen(STORY), start, 16, &prompt, NULL, 0));
  CHECK(cbl_session_position(session) == prompt);
  for (size_t i = 0; i < 2; i++, total += counted[i - 1]) {
    CHECK_OK(cbl_model_tokenize(model, NULL, continuations[i], strlen(continuations[i]), tokens + total,
                                16, &counted[i], NULL, 0));
    CHECK(counted[i] == sizes[i]);
  }
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_score_tokens(session, start, prompt, tokens, sizes, 2, again, NULL));
  CHECK(!memcmp(sums, again, sizeof sums));
  CHECK_STATUS(CBL_INVALID_UTF8, cbl_score(session, NULL, "", 0, bad, 2, sums, NULL));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_score(session, NULL, "", 0, (const char *const[]){"a", NULL}, 2,
                                           sums, NULL));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_session_free(other));
  CHECK_OK(cbl_model_free(model));
}

static double product(const float *a, const float *b, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += (double)a[i] * b[i];
  return sum;
}

static void embeddings(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  cbl_model_info info;
  CHECK_OK(cbl_model_get_info(model, &info, sizeof info));
  static float one[4096], two[4096], three[4096];
  size_t width;
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_embed(session, NULL, STORY, 4, NULL, 0, &width));
  CHECK(width == info.embedding && width <= 4096);
  CHECK_OK(cbl_embed(session, NULL, "set an alarm", 12, one, 4096, &width));
  CHECK_OK(cbl_embed(session, NULL, "set an alarm for six", 20, two, 4096, &width));
  CHECK_OK(cbl_embed(session, NULL, STORY, strlen(STORY), three, width, &width));
  CHECK(fabs(product(one, one, width) - 1) < 1e-5);
  CHECK(product(one, two, width) > product(one, three, width));
  CHECK_OK(cbl_embed(session, NULL, "set an alarm", 12, two, 4096, &width));
  CHECK(!memcmp(one, two, width * sizeof *one));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_POOLING, CBL_POOLING_LAST));
  CHECK_OK(cbl_embed(session, o, "set an alarm", 12, two, 4096, &width));
  CHECK(memcmp(one, two, width * sizeof *one));
  CHECK_OK(cbl_embed_tokens(session, o, TOKENS, 3, two, 4096, &width));
  CHECK(cbl_session_position(session) == 3);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_embed(session, o, "", 0, two, 4096, &width));
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_embed_tokens(session, o, TOKENS, 65, two, 4096, &width));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

typedef struct {
  const cbl_model *model;
  const cbl_classifier *classifier;
  double probabilities[3];
} classification;

static void *classify_on_a_thread(void *user) {
  classification *it = (classification *)user;
  cbl_session *session = new_session(it->model, NULL);
  size_t best;
  CHECK_OK(cbl_classify(session, it->classifier, "wake me at six", 14, &best, it->probabilities, 3));
  CHECK(best == 1);
  CHECK_OK(cbl_session_free(session));
  return NULL;
}

static void classifying(void) {
  char message[256];
  cbl_model *model = open_model(path), *second = open_model(path);
  cbl_options *o = new_options();
  const char *const labels[] = {"weather", "alarm", "alarm clock"};
  cbl_classifier *classifier;
  CHECK_OK(cbl_classifier_new(model, NULL, labels, 3, &classifier, message, sizeof message));
  cbl_session *session = new_session(model, NULL);
  size_t best;
  double all[3];
  CHECK_OK(cbl_classify(session, classifier, "what is the weather like", 24, &best, all, 3));
  CHECK(best == 0 && all[0] > all[1] && fabs(all[0] + all[1] + all[2] - 1) < 1e-9);
  CHECK_OK(cbl_classify(session, classifier, "wake me at six", 14, &best, NULL, 0));
  CHECK(best == 1);
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_classify(session, classifier, "a", 1, &best, all, 2));
  CHECK_STATUS(CBL_INVALID_UTF8, cbl_classify(session, classifier, "\xff", 1, &best, all, 3));
  cbl_session *foreign = new_session(second, NULL);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_classify(foreign, classifier, "a", 1, &best, all, 3));
  CHECK(strstr(cbl_session_error(foreign), "model"));
  CHECK_OK(cbl_session_free(foreign));
  CHECK_OK(cbl_model_free(second));
  CHECK_OK(cbl_classifier_free(classifier));

  /* Two threads share one, and its calibration. */
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CALIBRATION, CBL_CALIBRATION_CONTENT_FREE));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_NORMALIZATION, CBL_NORMALIZATION_MEAN));
  CHECK_OK(cbl_options_add_example(o, "will it rain", 12, "weather", 7));
  CHECK_OK(cbl_classifier_new(model, o, labels, 3, &classifier, message, sizeof message));
  CHECK_OK(cbl_options_clear_examples(o));
  classification both[2] = {{model, classifier, {0}}, {model, classifier, {0}}};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, classify_on_a_thread, &both[i]));
  for (int i = 0; i < 2; i++) CHECK(!pthread_join(threads[i], NULL));
  CHECK(!memcmp(both[0].probabilities, both[1].probabilities, sizeof all));

  /* The model may go first. */
  CHECK_OK(cbl_model_free(model));
  CHECK_OK(cbl_classify(session, classifier, "wake me at six", 14, &best, all, 3));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_classifier_free(classifier));

  model = open_model(path);
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_string(o, CBL_OPTION_TEMPLATE, "{label}", 7));
  CHECK(strstr(cbl_options_error(o), "{text}"));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, CBL_OPTION_CALIBRATION, 3));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, CBL_OPTION_NORMALIZATION, -1));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, CBL_OPTION_POOLING, 2));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, CBL_OPTION_DRAFT, 16));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_classifier_new(model, NULL, labels, 0, &classifier, NULL, 0));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_classifier_new(model, NULL, (const char *const[]){"a", "a"}, 2,
                                                  &classifier, message, sizeof message));
  CHECK(!classifier && strstr(message, "twice"));
  CHECK_OK(cbl_model_free(model));
  CHECK_OK(cbl_options_free(o));
}

enum { PROMPTS = 5 };

typedef struct {
  cbl_batch *batch;
  collected texts[PROMPTS];
  size_t stop_at, busy;
} several;

static bool collect_texts(void *user, size_t index, const char *text, size_t length) {
  several *to = (several *)user;
  if (to->batch) to->busy += cbl_batch_rewind(to->batch, 0, 0) == CBL_BUSY;
  if (to->batch) to->busy += cbl_batch_free(to->batch) == CBL_BUSY;
  return collect_text(&to->texts[index], text, length) && index != to->stop_at;
}

static bool collect_tokens(void *user, size_t index, uint32_t token) {
  return collect_token(&((several *)user)->texts[index], token);
}

static void generating_in_batches(void) {
  char message[256];
  cbl_model *model = open_model(path);
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 20));
  CHECK_OK(cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, 0.8));
  CHECK_OK(cbl_options_add_stop(o, "the", 3));
  cbl_memory_plan one, three;
  CHECK_OK(cbl_model_plan_batch(model, o, 1, &one, sizeof one, NULL, 0));
  CHECK_OK(cbl_model_plan_batch(model, o, 3, &three, sizeof three, NULL, 0));
  CHECK(three.cache_bytes == 3 * one.cache_bytes && three.total_bytes > one.total_bytes);
  cbl_batch *batch;
  CHECK_STATUS(CBL_BAD_OPTION, cbl_batch_new(model, o, 0, &batch, message, sizeof message));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_batch_new(model, o, 1025, &batch, message, sizeof message));
  CHECK(!batch && strstr(message, "1024"));
  CHECK_OK(cbl_batch_new(model, o, 2, &batch, message, sizeof message));

  /* The same as one by one, and one bad prompt disturbs nobody. */
  static char long_prompt[2000];
  memset(long_prompt, 'x', sizeof long_prompt - 1);
  for (size_t i = 1; i < sizeof long_prompt - 1; i += 2) long_prompt[i] = ' ';
  const char *const prompts[PROMPTS] = {STORY, "The cat", long_prompt, "", "A dog and"};
  static several together;
  together.stop_at = SIZE_MAX;
  together.batch = batch;
  cbl_status statuses[PROMPTS];
  cbl_stop_reason reasons[PROMPTS];
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_batch_generate(batch, o, prompts, PROMPTS, collect_texts, &together,
                                                    statuses, reasons));
  CHECK(together.busy > 0 && strstr(cbl_batch_error(batch), "context"));
  cbl_session *session = new_session(model, o);
  for (size_t i = 0; i < PROMPTS; i++) {
    static collected alone;
    memset(&alone, 0, sizeof alone);
    cbl_stop_reason reason;
    CHECK_OK(cbl_session_reset(session));
    cbl_status status = cbl_generate(session, o, prompts[i], strlen(prompts[i]), collect_text, &alone,
                                     &reason);
    CHECK(status == statuses[i] && reason == reasons[i] && (status == CBL_OK) == (i != 2));
    CHECK(!strcmp(alone.text, together.texts[i].text));
  }

  /* Ending one lets the others go on; token ids give the same. */
  static several stopped, tokens;
  stopped.stop_at = 1;
  CHECK_OK(cbl_batch_generate(batch, o, prompts, 2, collect_texts, &stopped, NULL, reasons));
  CHECK(stopped.texts[1].pieces == 1 && reasons[1] == CBL_STOP_CANCELLED);
  CHECK(!strcmp(stopped.texts[0].text, together.texts[0].text));
  uint32_t ids[16];
  size_t lengths[2];
  CHECK_OK(cbl_model_tokenize(model, NULL, STORY, strlen(STORY), ids, 8, &lengths[0], NULL, 0));
  CHECK_OK(cbl_model_tokenize(model, NULL, "The cat", 7, ids + lengths[0], 8, &lengths[1], NULL, 0));
  CHECK_OK(cbl_batch_generate_tokens(batch, o, ids, lengths, 2, collect_tokens, &tokens, NULL, NULL));
  static collected alone;
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_tokens(session, o, ids, lengths[0], collect_token, &alone, NULL));
  CHECK(alone.count == tokens.texts[0].count);
  CHECK(!memcmp(alone.tokens, tokens.texts[0].tokens, alone.count * sizeof *ids));

  CHECK_OK(cbl_batch_cancel(batch));
  CHECK_STATUS(CBL_CANCELLED, cbl_batch_generate(batch, o, prompts, 2, collect_texts, &stopped, NULL, NULL));
  CHECK_OK(cbl_batch_generate(batch, o, NULL, 0, collect_texts, &stopped, NULL, NULL));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_model_free(model));
  CHECK_OK(cbl_batch_free(batch));
}

static void evaluating_in_batches(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_THREADS, 2));
  cbl_batch *batch;
  CHECK_OK(cbl_batch_new(model, o, 3, &batch, NULL, 0));
  static const size_t named[2] = {2, 0}, lengths[2] = {2, 3}, twice[2] = {1, 1}, foreign[2] = {0, 3};
  static const uint32_t tokens[5] = {9, 10, 5, 6, 7};
  CHECK_OK(cbl_batch_evaluate(batch, named, lengths, 2, tokens));
  for (size_t i = 0; i < 2; i++) {
    const float *mine, *alone;
    const uint32_t *held;
    size_t count, position;
    uint32_t a, b;
    CHECK_OK(cbl_session_reset(session));
    CHECK_OK(cbl_session_evaluate(session, tokens + (i ? 2 : 0), lengths[i]));
    CHECK_OK(cbl_session_logits(session, &alone, &count));
    CHECK_OK(cbl_batch_logits(batch, named[i], &mine, &count));
    CHECK(!memcmp(mine, alone, count * sizeof *mine));
    CHECK_OK(cbl_session_sample(session, NULL, &a));
    CHECK_OK(cbl_batch_sample(batch, named[i], NULL, &b));
    CHECK(a == b);
    CHECK_OK(cbl_batch_tokens(batch, named[i], &held, &position));
    CHECK(position == lengths[i] && !memcmp(held, tokens + (i ? 2 : 0), position * sizeof *held));
  }
  const float *logits;
  size_t count;
  uint32_t token;
  CHECK_STATUS(CBL_NO_LOGITS, cbl_batch_logits(batch, 1, &logits, &count));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_batch_logits(batch, 3, &logits, &count));
  CHECK(!logits && !count);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_batch_sample(batch, SIZE_MAX, NULL, &token));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_batch_rewind(batch, 3, 0));
  CHECK_STATUS(CBL_BAD_POSITION, cbl_batch_rewind(batch, 2, 3));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_batch_evaluate(batch, twice, lengths, 2, tokens));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_batch_evaluate(batch, foreign, lengths, 2, tokens));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_batch_evaluate(batch, named, lengths, 0, tokens));
  CHECK_OK(cbl_batch_rewind(batch, 2, 0));
  CHECK_OK(cbl_batch_free(batch));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

/* In two parts, the second from the token that is pending, as in one. */
static void going_on(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  static collected whole, parts;
  cbl_session_stats stats;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_IGNORE_END_OF_TEXT, 1));
  CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
  CHECK(stats.pending_token == -1);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 20));
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, collect_token, &whole, NULL));
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 8));
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, collect_token, &parts, NULL));
  CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
  CHECK(stats.pending_token == parts.tokens[7]);
  uint32_t pending = (uint32_t)stats.pending_token;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 12));
  CHECK_OK(cbl_generate_tokens(session, o, &pending, 1, collect_token, &parts, NULL));
  CHECK(parts.count == 20 && !memcmp(parts.tokens, whole.tokens, sizeof whole.tokens));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

/* What was guessed is told. */
static void guesses(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  static const uint32_t repeated[12] = {5, 6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8};
  CHECK_OK(cbl_session_evaluate(session, repeated, 12));
  for (int i = 0; i < 24; i++) CHECK_OK(cbl_session_evaluate(session, repeated + i % 4, 1));
  cbl_session_stats stats;
  CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
  CHECK(stats.right_guesses <= stats.guessed_tokens);
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  path = arguments[1];
  scores();
  embeddings();
  classifying();
  generating_in_batches();
  evaluating_in_batches();
  going_on();
  guesses();
  return 0;
}
