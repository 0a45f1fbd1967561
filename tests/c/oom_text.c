/* The N-th allocation fails, once or from then on, or memory has a limit, in every function that takes a text or
 * a constraint. The libraries for constraints and chat templates do not report such failures: there Rust's
 * allocator ends the process by abort(). So each try has a process of its own, and what is promised
 * (docs/embedding.md, section 5) is: the call succeeds with the same result, or returns CBL_NO_MEMORY, after which
 * the same call works; or, in the functions that ABORTS names, the process aborts. No other status, no other
 * signal, no hang. And it does not abort for a limit, or if there is no memory from the beginning, because what
 * these libraries take is asked for before.
 * Usage: oom_text MODEL MODEL_WITH_TEMPLATE [MANY]; the first has a simple form for conversations, the second a
 * template that needs the engine. With MANY many more are tried, and a table is printed. */
#include "refuse.h"
#include "support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path, *engine_path;
static cbl_model *model, *engine_model;
static cbl_options *options;
static cbl_session *session, *engine_session;
static cbl_batch *batch;
static cbl_classifier *classifier, *asking, *engine_asking;
static cbl_template *template, *question;

/* What came out, for comparing. */
static uint64_t result;

static void add(const void *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) result = (result ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
}

static bool add_text(void *user, const char *text, size_t length) { return (void)user, add(text, length), true; }
static bool add_batch_text(void *user, size_t index, const char *text, size_t length) {
  return (void)user, (void)index, add(text, length), true;
}

#define TEXT "Once upon a time there was a fox. It was cold, and the fox was 12 years old."
static const size_t LENGTH = sizeof TEXT - 1;
static const char *const LABELS[3] = {"alarm", "timer", "weather"};
static const char *const PROMPTS[3] = {"Once upon", "The cat", ""};

static cbl_status set(cbl_option key, const char *value) {
  return cbl_options_set_string(options, key, value, strlen(value));
}

static cbl_status open_and_free(void) {
  cbl_model *made;
  cbl_status status = cbl_model_open(path, NULL, &made, NULL, 0);
  if (!status) CHECK_OK(cbl_model_free(made));
  return status;
}

static cbl_status tokenize(void) {
  uint32_t tokens[256];
  size_t count;
  cbl_status status = cbl_model_tokenize(model, NULL, TEXT, LENGTH, tokens, 256, &count, NULL, 0);
  if (!status) add(tokens, count * sizeof *tokens);
  return status;
}

static cbl_status detokenize(void) {
  char text[256];
  size_t length;
  cbl_status status = cbl_model_detokenize(model, TOKENS, 3, text, sizeof text, &length, NULL, 0);
  if (!status) add(text, length);
  return status;
}

static cbl_status token_bytes(void) {
  const char *bytes;
  size_t length;
  cbl_status status = cbl_model_token_bytes(model, TOKENS[0], &bytes, &length);
  if (!status) add(bytes, length);
  return status;
}

static cbl_status generate(void) {
  CHECK_OK(cbl_session_reset(session));
  return cbl_generate(session, options, TEXT, LENGTH, add_text, NULL, NULL);
}

static cbl_status generate_within(cbl_option key, const char *value) {
  cbl_status status = set(key, value);
  if (!status) status = generate();
  long refused = fail_at;
  fail_at = 0;
  CHECK_OK(set(key, ""));
  fail_at = refused;
  return status;
}

static cbl_status choose(void) { return generate_within(CBL_OPTION_CHOICES, "six\nseven thirty\nten"); }
static cbl_status match(void) { return generate_within(CBL_OPTION_REGEX, "[0-9]{1,2}:[0-9]{2}"); }
static cbl_status follow_schema(void) {
  return generate_within(CBL_OPTION_JSON_SCHEMA, "{\"type\": \"object\", \"properties\": {\"hour\": {\"enum\": "
                                                 "[\"six\", \"ten\"]}}, \"required\": [\"hour\"]}");
}

static cbl_status score(void) {
  double sums[3];
  size_t lengths[3];
  CHECK_OK(cbl_session_reset(session));
  cbl_status status = cbl_score(session, NULL, TEXT, LENGTH, LABELS, 3, sums, lengths);
  if (!status) add(sums, sizeof sums);
  return status;
}

static cbl_status embed(void) {
  static float embedding[4096];
  size_t width;
  cbl_status status = cbl_embed(session, NULL, TEXT, LENGTH, embedding, 4096, &width);
  if (!status) add(embedding, width * sizeof *embedding);
  return status;
}

static cbl_status make_classifier(void) {
  cbl_classifier *made;
  cbl_status status = cbl_classifier_new(model, options, LABELS, 3, &made, NULL, 0);
  CHECK((status == CBL_OK) == (made != NULL));
  CHECK_OK(cbl_classifier_free(made));
  return status;
}

static cbl_status make_classification(cbl_session *with, const cbl_classifier *by) {
  size_t best;
  double probabilities[3];
  cbl_status status = cbl_classify(with, by, TEXT, LENGTH, &best, probabilities, 3);
  if (!status) add(probabilities, sizeof probabilities);
  return status;
}

static cbl_status classify(void) { return make_classification(session, classifier); }

/* A classifier that asks the model in its chat form, with examples and a calibration. */
static cbl_status new_asking(const cbl_model *of, cbl_classifier **made) {
  static const char text[] = "chat: yes\n---\nIs this one of {labels}?\r\n{text}\n{label}";
  long refused = fail_at;
  size_t limited = limit;
  fail_at = 0;
  limit = 0;
  cbl_options *asks = new_options();
  CHECK_OK(cbl_options_set_string(asks, CBL_OPTION_TEMPLATE, text, sizeof text - 1));
  CHECK_OK(cbl_options_set_int(asks, CBL_OPTION_CALIBRATION, CBL_CALIBRATION_CONTENT_FREE));
  CHECK_OK(cbl_options_add_example(asks, "wake me", 7, "alarm", 5));
  fail_at = refused;
  limit = limited;
  cbl_status status = cbl_classifier_new(of, asks, LABELS, 3, made, NULL, 0);
  CHECK((status == CBL_OK) == (*made != NULL));
  CHECK_OK(cbl_options_free(asks));
  return status;
}

static cbl_status make_asking(void) {
  cbl_classifier *made;
  cbl_status status = new_asking(model, &made);
  CHECK_OK(cbl_classifier_free(made));
  return status;
}

static cbl_status engine_make_asking(void) {
  cbl_classifier *made;
  cbl_status status = new_asking(engine_model, &made);
  CHECK_OK(cbl_classifier_free(made));
  return status;
}

static cbl_status ask(void) { return make_classification(session, asking); }
static cbl_status engine_ask(void) { return make_classification(engine_session, engine_asking); }

static cbl_status name_template(void) {
  cbl_template *made;
  cbl_status status = cbl_template_named(model, "summarize", 9, &made, NULL, 0);
  CHECK_OK(cbl_template_free(made));
  return status;
}

static cbl_status make_template(void) {
  static const char text[] = "stop: \"\\n\"\nmax-tokens: 6\nsplit: sentences\n---\nText: {text}\nShort:";
  cbl_template *made;
  cbl_status status = cbl_template_new(text, sizeof text - 1, &made, NULL, 0);
  CHECK_OK(cbl_template_free(made));
  return status;
}

static cbl_status apply_template(void) {
  return cbl_apply_template(session, template, NULL, TEXT, LENGTH, add_text, NULL, NULL, 0);
}

/* A task that is a message to the model: so is `translate`, for a model that knows conversations. */
static cbl_status new_question(cbl_template **made) {
  static const char text[] = "chat: yes\nstop: \"\\n\"\nmax-tokens: 6\nsplit: sentences\n---\nIn French: {text}";
  return cbl_template_new(text, sizeof text - 1, made, NULL, 0);
}

static cbl_status apply_question(void) {
  return cbl_apply_template(session, question, NULL, TEXT, LENGTH, add_text, NULL, NULL, 0);
}

static cbl_status engine_apply_question(void) {
  return cbl_apply_template(engine_session, question, NULL, TEXT, LENGTH, add_text, NULL, NULL, 0);
}

/* A prompt may fail alone; the call returns the first such status. Texts come in any order. */
static cbl_status generate_batch(void) {
  uint64_t before = result;
  cbl_status status = cbl_batch_generate(batch, options, PROMPTS, 3, add_batch_text, NULL, NULL, NULL);
  result = before;
  return status;
}

static cbl_status pull(void) {
  uint64_t generation;
  cbl_step step;
  cbl_stop_reason reason = CBL_STOP_NONE;
  CHECK_OK(cbl_session_reset(session));
  cbl_status status = cbl_generation_begin(session, options, TEXT, LENGTH, &generation);
  while (!status && !reason) {
    status = cbl_generation_next(session, generation, &step, sizeof step, &reason);
    if (!status) add(step.text, step.length);
  }
  CHECK_OK(cbl_generation_end(session, generation, NULL));
  return status;
}

/* A prompt may fail alone, as in generate_batch(). */
static cbl_status pull_batch(void) {
  uint64_t generation;
  cbl_batch_step step;
  bool more = true;
  cbl_status status = cbl_batch_begin(batch, options, PROMPTS, 3, &generation), first = CBL_OK;
  while (!status && more) {
    status = cbl_batch_next(batch, generation, &step, sizeof step, &more);
    if (!status && more && !first) first = step.status;
  }
  CHECK_OK(cbl_batch_end(batch, generation));
  return status ? status : first;
}

static cbl_status match_batch(void) {
  cbl_status status = set(CBL_OPTION_REGEX, "[a-z ]{1,8}");
  if (!status) status = generate_batch();
  long refused = fail_at;
  fail_at = 0;
  CHECK_OK(set(CBL_OPTION_REGEX, ""));
  fail_at = refused;
  return status;
}

static const char *const ROLES[4] = {"system", "user", "assistant", "user"};
static const char *const CONTENTS[4] = {"Be brief.", TEXT, "Yes. <|endoftext|>", "Why?"};

static cbl_status make_tokens_of_chat(const cbl_model *of) {
  uint32_t tokens[256];
  size_t count;
  cbl_status status = cbl_chat_tokens(of, options, ROLES, CONTENTS, 4, tokens, 256, &count, NULL, 0);
  if (!status) add(tokens, count * sizeof *tokens);
  return status;
}

static cbl_status make_answer(cbl_session *with) {
  cbl_chat_result result;
  CHECK_OK(cbl_session_reset(with));
  cbl_status status = cbl_chat_answer(with, options, ROLES, CONTENTS, 4, add_text, NULL, &result, sizeof result);
  if (!status) add(&result, sizeof result);
  return status;
}

static cbl_status chat_tokens(void) { return make_tokens_of_chat(model); }
static cbl_status chat_answer(void) { return make_answer(session); }
static cbl_status engine_tokens(void) { return make_tokens_of_chat(engine_model); }
static cbl_status engine_answer(void) { return make_answer(engine_session); }

static cbl_status set_options(void) {
  cbl_options *made;
  cbl_status status = cbl_options_new(&made);
  if (!status) status = cbl_options_set_string(made, CBL_OPTION_TEMPLATE, "{text} is {label}\n", 18);
  if (!status) status = cbl_options_set_string(made, CBL_OPTION_DATE, "2025-02-28", 10);
  if (!status) status = cbl_options_add_stop(made, "stop", 4);
  if (!status) status = cbl_options_add_example(made, TEXT, LENGTH, "fox", 3);
  if (!status && cbl_has_constraints()) status = cbl_options_set_string(made, CBL_OPTION_REGEX, "[a-z]+", 6);
  if (!status && cbl_has_constraints()) status = cbl_options_set_string(made, CBL_OPTION_CHOICES, "a\nb", 3);
  CHECK_OK(cbl_options_free(made));
  return status;
}

typedef struct {
  const char *name;
  cbl_status (*run)(void);
  /* What the library must have been built with. */
  bool (*needs)(void);
  /* Whether a single allocation that fails may end the process. */
  enum { NEVER, NEW, ABORTS } ends;
} operation;

/* Functions end the process by what they call: the parser of a file's header, of a template or of an option; the
 * library for constraints; the engine for chat templates. Those marked NEW may do so for a model that has met no
 * text yet, where they share the tokenizer that they have made: the standard library has no other way. */
static const operation OPERATIONS[] = {
    {"cbl_model_open", open_and_free, NULL, ABORTS},
    {"cbl_model_tokenize", tokenize, NULL, NEW},
    {"cbl_model_detokenize", detokenize, NULL, NEW},
    {"cbl_model_token_bytes", token_bytes, NULL, NEW},
    {"cbl_generate", generate, NULL, NEW},
    {"cbl_generate, choices", choose, cbl_has_constraints, ABORTS},
    {"cbl_generate, regular expression", match, cbl_has_constraints, ABORTS},
    {"cbl_generate, JSON schema", follow_schema, cbl_has_constraints, ABORTS},
    {"cbl_score", score, NULL, NEW},
    {"cbl_embed", embed, NULL, NEW},
    {"cbl_classifier_new", make_classifier, NULL, NEW},
    {"cbl_classifier_new, question", make_asking, NULL, NEW},
    {"cbl_classifier_new, question by template", engine_make_asking, cbl_has_chat, ABORTS},
    {"cbl_classify", classify, NULL, NEVER},
    {"cbl_classify, question", ask, NULL, NEVER},
    {"cbl_classify, question by template", engine_ask, cbl_has_chat, ABORTS},
    {"cbl_template_named", name_template, NULL, ABORTS},
    {"cbl_template_new", make_template, NULL, ABORTS},
    {"cbl_apply_template", apply_template, NULL, NEW},
    {"cbl_apply_template, question", apply_question, NULL, NEW},
    {"cbl_apply_template, question by template", engine_apply_question, cbl_has_chat, ABORTS},
    {"cbl_batch_generate", generate_batch, NULL, ABORTS},
    {"cbl_batch_generate, regular expression", match_batch, cbl_has_constraints, ABORTS},
    {"cbl_generation_begin, _next", pull, NULL, NEW},
    {"cbl_batch_begin, _next", pull_batch, NULL, ABORTS},
    {"cbl_chat_tokens", chat_tokens, NULL, NEW},
    {"cbl_chat_answer", chat_answer, NULL, NEW},
    {"cbl_chat_tokens, template", engine_tokens, cbl_has_chat, ABORTS},
    {"cbl_chat_answer, template", engine_answer, cbl_has_chat, ABORTS},
    {"cbl_options_*", set_options, NULL, ABORTS},
};

static bool is_built(const operation *operation) { return !operation->needs || operation->needs(); }

static uint64_t result_of(const operation *operation) {
  result = 0xcbf29ce484222325u;
  CHECK_OK(operation->run());
  return result;
}

/* What is refused: allocation `n`, and with `ever` all after it; or what would take more than `limit` bytes. */
typedef struct {
  long n;
  bool ever;
  size_t limit;
} refusal;

/* In a process of its own: what becomes of the call. Exit codes: 0 it succeeded, 1 CBL_NO_MEMORY; 9 something that
 * must not be, which is printed. */
static void try_once(const operation *operation, refusal refusal, uint64_t expected) {
  /* What Rust says before it aborts is not shown. */
  int errors = dup(2), nowhere = open("/dev/null", O_WRONLY);
  dup2(nowhere, 2);
  alarm(60);
  result = 0xcbf29ce484222325u;
  calls = 0;
  for_ever = refusal.ever;
  fail_at = refusal.n;
  limit = refusal.limit ? used + refusal.limit : 0;
  cbl_status status = operation->run();
  fail_at = 0;
  limit = 0;
  dup2(errors, 2);
  /* What is compiled gets a thread, and the system does not say why it refuses one. */
  if (status == CBL_NO_THREADS) status = CBL_NO_MEMORY;
  bool kept = status == CBL_NO_MEMORY || (status == CBL_OK && result == expected);
  if (!kept || result_of(operation) != expected) {
    dprintf(2, "%s: status %d\n", operation->name, (int)status);
    _exit(9);
  }
  _exit(status == CBL_NO_MEMORY);
}

static int status_of(pid_t child) {
  int status;
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  return status;
}

typedef struct {
  long allocations;
  size_t bytes;
  uint64_t result;
} needs;

/* What it needs and returns, found out in another process, which leaves everything as cold as it is. */
static needs needs_of(const operation *operation) {
  int ends[2];
  needs needs;
  CHECK(!pipe(ends));
  pid_t child = fork();
  if (!child) {
    size_t before = used;
    calls = 0;
    most_used = used;
    needs.result = result_of(operation);
    needs.allocations = calls;
    needs.bytes = most_used - before;
    CHECK(write(ends[1], &needs, sizeof needs) == sizeof needs);
    _exit(0);
  }
  CHECK(status_of(child) == 0 && read(ends[0], &needs, sizeof needs) == sizeof needs);
  close(ends[0]), close(ends[1]);
  return needs;
}

static const char *const STATES[2] = {"new", "used before"};

/* Successes, CBL_NO_MEMORY, aborts. */
typedef long counts[3];

static void count(const operation *operation, bool warm, refusal refusal, uint64_t expected, counts counts) {
  pid_t child = fork();
  if (!child) try_once(operation, refusal, expected);
  int status = status_of(child);
  bool may_abort = operation->ends == ABORTS || (operation->ends == NEW && !warm);
  may_abort = may_abort && !refusal.limit && refusal.n > 1;
  if (WIFEXITED(status) && WEXITSTATUS(status) < 2) {
    counts[WEXITSTATUS(status)]++;
  } else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && may_abort) {
    counts[2]++;
  } else {
    fprintf(stderr, "%s, %s, allocation %ld%s, limit %zu: status %#x\n", operation->name, STATES[warm], refusal.n,
            refusal.ever ? " and all after it" : "", refusal.limit, (unsigned)status);
    exit(1);
  }
}

/* The allocation that is refused after the n-th: sooner or later most are of the same kind. */
static long next(long n, bool many) {
  if (many) return n < 24 ? n + 1 : n + n / 5;
  return n < 4 ? n + 1 : 2 * n;
}

static void try_all(const operation *operation, bool warm, bool many) {
  needs needs = needs_of(operation);
  counts single = {0}, limited = {0};
  for (int ever = 0; ever < 2; ever++) {
    /* Building a tokenizer anew for each takes long. */
    if (ever && !warm && !many) continue;
    for (long n = 1; n <= needs.allocations; n = next(n, many)) {
      count(operation, warm, (refusal){n, ever, 0}, needs.result, single);
    }
  }
  for (size_t i = 0, steps = many ? 40 : 9; i < steps; i++) {
    count(operation, warm, (refusal){0, false, 1 + needs.bytes * i / steps}, needs.result, limited);
  }
  if (many) {
    printf("| `%s` | %s | %ld | %zu | %ld, %ld, %ld | %ld, %ld, %ld |\n", operation->name, STATES[warm], needs.allocations,
           (needs.bytes + 1023) / 1024, single[1], single[0], single[2], limited[1], limited[0], limited[2]);
    fflush(stdout);
  }
}

static void prepare(void) {
  model = open_model(path);
  engine_model = open_model(engine_path);
  session = new_session(model, options);
  engine_session = new_session(engine_model, options);
  CHECK_OK(cbl_batch_new(model, options, 2, &batch, NULL, 0));
  CHECK_OK(cbl_template_named(model, "summarize", 9, &template, NULL, 0));
  CHECK_OK(new_question(&question));
}

int main(int count, char **arguments) {
  CHECK(count == 3 || count == 4);
  bool many = count == 4;
  path = arguments[1];
  engine_path = arguments[2];
  options = new_options();
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_CONTEXT, 128));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_MAX_TOKENS, 8));
  CHECK_OK(cbl_options_add_stop(options, "stop", 4));
  if (many) {
    printf("| | model | allocations | KiB | one refused, or all from it on | a limit |\n|---|---|---|---|---|---|\n");
  }
  size_t operations = sizeof OPERATIONS / sizeof *OPERATIONS;
  for (int warm = 0; warm < 2; warm++) {
    /* Cold: nothing has met a text yet. A classifier cannot be made without. */
    prepare();
    if (warm) {
      CHECK_OK(cbl_classifier_new(model, NULL, LABELS, 3, &classifier, NULL, 0));
      CHECK_OK(new_asking(model, &asking));
      if (cbl_has_chat()) CHECK_OK(new_asking(engine_model, &engine_asking));
      for (size_t i = 0; i < operations; i++) {
        if (is_built(&OPERATIONS[i])) CHECK_OK(OPERATIONS[i].run());
      }
    }
    for (size_t i = 0; i < operations; i++) {
      if (!is_built(&OPERATIONS[i])) continue;
      bool by_classifier = OPERATIONS[i].run == classify || OPERATIONS[i].run == ask || OPERATIONS[i].run == engine_ask;
      if (!warm && by_classifier) continue;
      try_all(&OPERATIONS[i], warm, many);
    }
    CHECK_OK(cbl_classifier_free(engine_asking));
    CHECK_OK(cbl_classifier_free(asking));
    CHECK_OK(cbl_classifier_free(classifier));
    CHECK_OK(cbl_template_free(question));
    CHECK_OK(cbl_template_free(template));
    CHECK_OK(cbl_batch_free(batch));
    CHECK_OK(cbl_session_free(engine_session));
    CHECK_OK(cbl_session_free(session));
    CHECK_OK(cbl_model_free(engine_model));
    CHECK_OK(cbl_model_free(model));
  }
  CHECK_OK(cbl_options_free(options));
  return 0;
}
