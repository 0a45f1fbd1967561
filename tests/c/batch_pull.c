/* What the header promises of batches on demand. Usage: batch_pull MODEL DIRECTORY */
#include "support.h"

static cbl_model *model;
static cbl_batch *batch;

enum { PROMPTS = 5 };

/* What came of each prompt. */
typedef struct {
  collected texts[PROMPTS];
  cbl_status statuses[PROMPTS];
  cbl_stop_reason reasons[PROMPTS];
  int ends[PROMPTS];
} outcomes;

static const uint32_t LISTS[] = {5, 6, 7, 5, 8, 9, 5, 6, 10, 11, 12};
static const size_t LENGTHS[PROMPTS] = {3, 1, 2, 0, 5};

static bool on_token(void *user, size_t index, uint32_t token) {
  outcomes *all = user;
  return collect_token(&all->texts[index], token);
}

static cbl_batch_step next(uint64_t generation, bool *more) {
  cbl_batch_step step;
  CHECK_OK(cbl_batch_next(batch, generation, &step, sizeof step, more));
  if (!*more) CHECK(step.index == SIZE_MAX && step.token == -1 && step.length == 0);
  return step;
}

/* Takes all steps that are left; stops text `stop` after its first token. */
static void pull(uint64_t generation, outcomes *all, size_t stop) {
  bool more;
  for (;;) {
    cbl_batch_step step = next(generation, &more);
    if (!more) break;
    CHECK(step.index < PROMPTS && !all->ends[step.index]);
    if (step.length) collect_text(&all->texts[step.index], step.text, step.length);
    if (step.token >= 0) collect_token(&all->texts[step.index], (uint32_t)step.token);
    if (step.token >= 0 && step.index == stop) CHECK_OK(cbl_batch_stop(batch, generation, stop));
    all->statuses[step.index] = step.status;
    all->reasons[step.index] = step.reason;
    all->ends[step.index] = step.status != CBL_OK || step.reason != CBL_STOP_NONE;
    CHECK(!all->ends[step.index] || (step.token == -1 && step.length == 0));
  }
  next(generation, &more);
  CHECK(!more);
}

static void check_gone(uint64_t generation) {
  cbl_batch_step step;
  bool more = true;
  CHECK_STATUS(CBL_NO_GENERATION, cbl_batch_next(batch, generation, &step, sizeof step, &more));
  CHECK(!more && step.token == -1 && step.length == 0);
  CHECK_STATUS(CBL_NO_GENERATION, cbl_batch_stop(batch, generation, 0));
  CHECK(strstr(cbl_batch_error(batch), "begin another"));
  CHECK_OK(cbl_batch_end(batch, generation));
}

static uint64_t begin(const cbl_options *o) {
  uint64_t generation;
  CHECK_OK(cbl_batch_begin_from_tokens(batch, o, LISTS, LENGTHS, PROMPTS, &generation));
  CHECK(generation);
  return generation;
}

static void same_as_by_callback(cbl_options *o) {
  static outcomes pushed, pulled;
  memset(&pushed, 0, sizeof pushed);
  memset(&pulled, 0, sizeof pulled);
  CHECK_OK(cbl_batch_generate_tokens(batch, o, LISTS, LENGTHS, PROMPTS, on_token, &pushed,
                                     pushed.statuses, pushed.reasons));
  uint64_t generation = begin(o);
  pull(generation, &pulled, SIZE_MAX);
  for (size_t i = 0; i < PROMPTS; i++) {
    CHECK(pulled.ends[i] && pulled.statuses[i] == pushed.statuses[i]);
    CHECK(pulled.reasons[i] == pushed.reasons[i]);
    CHECK(pulled.texts[i].count == pushed.texts[i].count && pulled.texts[i].count > 0);
    CHECK(!memcmp(pulled.texts[i].tokens, pushed.texts[i].tokens, 4 * pulled.texts[i].count));
    CHECK(pulled.texts[i].length > 0);
  }
  CHECK_OK(cbl_batch_end(batch, generation));
  check_gone(generation);
}

static void single_texts(cbl_options *o) {
  /* One is stopped, the others go on. */
  static outcomes whole, stopped;
  memset(&whole, 0, sizeof whole);
  pull(begin(o), &whole, SIZE_MAX);
  uint64_t generation = begin(o);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_batch_stop(batch, generation, PROMPTS));
  /* This one is not taken up at all. */
  CHECK_OK(cbl_batch_stop(batch, generation, 4));
  pull(generation, &stopped, 1);
  for (size_t i = 0; i < PROMPTS; i++) {
    bool is_stopped = i == 1 || i == 4;
    CHECK(stopped.reasons[i] == (is_stopped ? CBL_STOP_CANCELLED : whole.reasons[i]));
    CHECK(stopped.texts[i].count == (i == 4 ? 0 : is_stopped ? 1 : whole.texts[i].count));
    if (!is_stopped) CHECK(!strcmp(stopped.texts[i].text, whole.texts[i].text));
  }
  /* One that cannot be continued does not disturb the others. */
  static outcomes bad;
  static uint32_t lists[200];
  static const size_t lengths[3] = {3, 100, 1};
  memcpy(lists, LISTS, sizeof LISTS);
  lists[103] = 1u << 30;
  CHECK_OK(cbl_batch_begin_from_tokens(batch, o, lists, lengths, 3, &generation));
  pull(generation, &bad, SIZE_MAX);
  CHECK(bad.statuses[1] == CBL_CONTEXT_FULL && bad.statuses[2] == CBL_BAD_TOKEN);
  CHECK(bad.reasons[0] == whole.reasons[0] && !strcmp(bad.texts[0].text, whole.texts[0].text));
  /* None. */
  bool more;
  CHECK_OK(cbl_batch_begin_from_tokens(batch, o, NULL, NULL, 0, &generation));
  next(generation, &more);
  CHECK(!more);
}

static void texts(cbl_options *o) {
  if (!cbl_has_text()) return;
  static outcomes all;
  static collected alone;
  static const char *const TEXTS[2] = {"Once upon a time", "The cat"};
  uint64_t generation;
  cbl_session *session = new_session(model, o);
  CHECK_OK(cbl_options_add_stop(o, "e", 1));
  CHECK_OK(cbl_generate(session, o, TEXTS[0], strlen(TEXTS[0]), collect_text, &alone, NULL));
  CHECK_OK(cbl_batch_begin(batch, o, TEXTS, 2, &generation));
  CHECK_OK(cbl_options_clear_stops(o)); /* It has its own. */
  pull(generation, &all, SIZE_MAX);
  CHECK(all.reasons[0] == CBL_STOP_STRING && !strcmp(all.texts[0].text, alone.text));
  CHECK(!strchr(all.texts[1].text, 'e'));
  if (cbl_has_constraints()) {
    static outcomes chosen;
    CHECK_OK(cbl_options_set_string(o, CBL_OPTION_CHOICES, "six\nseven thirty", 16));
    CHECK_OK(cbl_batch_begin(batch, o, TEXTS, 2, &generation));
    pull(generation, &chosen, SIZE_MAX);
    for (int i = 0; i < 2; i++) {
      CHECK(chosen.reasons[i] == CBL_STOP_COMPLETE);
      CHECK(strstr(chosen.texts[i].text, "six") || strstr(chosen.texts[i].text, "seven thirty"));
    }
    CHECK_OK(cbl_options_set_string(o, CBL_OPTION_CHOICES, "", 0));
  }
  CHECK_OK(cbl_session_free(session));
}

static void what_ends_it(cbl_options *o) {
  static const size_t SEQUENCES[1] = {0}, ONE[1] = {1};
  static outcomes ignored;
  bool more;
#define ENDS(call) \
  do { \
    uint64_t generation = begin(o); \
    next(generation, &more); \
    (void)(call); \
    check_gone(generation); \
  } while (0)
  ENDS(cbl_batch_rewind(batch, 0, 0));
  ENDS(cbl_batch_rewind(batch, 999, 0)); /* It fails. */
  ENDS(cbl_batch_evaluate(batch, SEQUENCES, ONE, 1, TOKENS));
  ENDS(cbl_batch_generate_tokens(batch, o, LISTS, LENGTHS, 1, on_token, &ignored, NULL, NULL));
  ENDS(begin(o));
  ENDS(cbl_batch_end(batch, generation));

  /* What leaves it. */
  uint64_t generation = begin(o);
  const uint32_t *tokens;
  const float *logits;
  size_t count;
  uint32_t token;
  cbl_batch_step step = next(generation, &more);
  CHECK_OK(cbl_batch_tokens(batch, 0, &tokens, &count));
  CHECK(count >= 1); /* Which text is in which sequence is not said. */
  CHECK_OK(cbl_batch_logits(batch, 0, &logits, &count));
  CHECK_OK(cbl_batch_sample(batch, 0, NULL, &token));
  CHECK_OK(cbl_batch_clear_cancel(batch));
  CHECK(next(generation, &more).token >= 0);

  /* Cancelled: all of them, and the request is used up, or taken back by the end. */
  CHECK_OK(cbl_batch_cancel(batch));
  cbl_status status;
  do {
    status = cbl_batch_next(batch, generation, &step, sizeof step, &more);
  } while (status == CBL_OK && more);
  CHECK(status == CBL_CANCELLED);
  check_gone(generation);
  CHECK_OK(cbl_batch_evaluate(batch, SEQUENCES, ONE, 1, TOKENS));
  generation = begin(o);
  next(generation, &more);
  CHECK_OK(cbl_batch_cancel(batch));
  CHECK_OK(cbl_batch_end(batch, generation));
  CHECK_OK(cbl_batch_evaluate(batch, SEQUENCES, ONE, 1, TOKENS));

  /* Places are checked before anything is lost. */
  generation = begin(o);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_batch_next(batch, generation, &step, 8, &more));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_batch_next(batch, generation, &step, sizeof step, NULL));
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  model = open_model(arguments[1]);
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 20));
  CHECK_OK(cbl_batch_new(model, o, 2, &batch, NULL, 0));
  same_as_by_callback(o);
  CHECK_OK(cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, 0.9));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_IGNORE_END_OF_TEXT, 1));
  same_as_by_callback(o);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1000));
  same_as_by_callback(o);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 12));
  single_texts(o);
  texts(o);
  what_ends_it(o);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_batch_free(batch)); /* In the middle of a generation. */
  CHECK_OK(cbl_model_free(model));
  return 0;
}
