/* What the header promises of what generation can be told and tells: biases, probabilities, constraints,
 * templates. Usage: steps MODEL DIRECTORY */
#include "support.h"

#include <math.h>

static cbl_model *model;
static const char STORY[] = "Once upon a time";

static void logit_biases(void) {
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  uint32_t first, second;
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK_OK(cbl_session_sample(session, o, &first));
  CHECK_OK(cbl_options_set_logit_bias(o, first, -100));
  CHECK_OK(cbl_session_sample(session, o, &second));
  CHECK(second != first);
  CHECK_OK(cbl_options_set_logit_bias(o, 42, 100));
  CHECK_OK(cbl_session_sample(session, o, &second));
  CHECK(second == 42);
  /* A token of another vocabulary is found out when a model is there. */
  CHECK_OK(cbl_options_set_logit_bias(o, UINT32_MAX, 5));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_session_sample(session, o, &second));
  CHECK(strstr(cbl_session_error(session), "4294967295"));
  CHECK_OK(cbl_options_set_logit_bias(o, UINT32_MAX, 0));
  /* The last value counts; what is refused changes nothing. */
  CHECK_OK(cbl_options_set_logit_bias(o, 42, 0));
  CHECK_OK(cbl_options_set_logit_bias(o, first, 0));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_logit_bias(o, 42, 1001));
  CHECK(strstr(cbl_options_error(o), "1001"));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_logit_bias(o, 42, NAN));
  CHECK_OK(cbl_session_sample(session, o, &second));
  CHECK(second == first);
  CHECK_OK(cbl_options_set_logit_bias(o, 42, 100));
  CHECK_OK(cbl_options_clear_logit_biases(o));
  CHECK_OK(cbl_session_sample(session, o, &second));
  CHECK(second == first);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

/* Against the definition, in the C library's mathematics. */
static double log_probability(const float *logits, size_t count, uint32_t token) {
  double sum = 0, most = logits[0];
  for (size_t i = 0; i < count; i++) most = logits[i] > most ? logits[i] : most;
  for (size_t i = 0; i < count; i++) sum += exp(logits[i] - most);
  return logits[token] - most - log(sum);
}

static void probabilities(void) {
  cbl_session *session = new_session(model, NULL);
  const float *logits;
  size_t count, found = 9;
  uint32_t tokens[5], best;
  double logs[5];
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK_OK(cbl_session_logits(session, &logits, &count));
  CHECK_OK(cbl_session_sample(session, NULL, &best));
  CHECK_OK(cbl_top_tokens(logits, count, tokens, logs, 5, &found));
  CHECK(found == 5 && tokens[0] == best);
  for (int i = 0; i < 5; i++) {
    CHECK(fabs(logs[i] - log_probability(logits, count, tokens[i])) < 1e-6);
    CHECK(i == 0 || logs[i] <= logs[i - 1]);
  }
  double again[5];
  CHECK_OK(cbl_log_probabilities(logits, count, tokens, 5, again));
  CHECK(!memcmp(again, logs, sizeof logs));

  /* Fewer tokens than asked for, equal ones, none. */
  const float three[3] = {1, 2, 2};
  CHECK_OK(cbl_top_tokens(three, 3, tokens, NULL, 5, &found));
  CHECK(found == 3 && tokens[0] == 1 && tokens[1] == 2 && tokens[2] == 0);
  CHECK_OK(cbl_top_tokens(three, 3, tokens, logs, 0, &found));
  CHECK(found == 0);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_top_tokens(three, 0, tokens, logs, 5, &found));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_log_probabilities(three, 0, tokens, 1, logs));
  CHECK_STATUS(CBL_BAD_TOKEN, cbl_log_probabilities(three, 2, tokens, 2, logs));
  CHECK_OK(cbl_session_free(session));
}

typedef struct {
  collected all;
  size_t tokens, bare, limit;
  double log_probability;
} steps;

static bool on_step(void *user, const cbl_step *step) {
  steps *to = (steps *)user;
  if (step->length) collect_text(&to->all, step->text, step->length);
  if (step->token < 0) {
    CHECK(!step->logits && step->length);
    return true;
  }
  uint32_t token = (uint32_t)step->token;
  double log_probability;
  if (step->logits) {
    CHECK_OK(cbl_log_probabilities(step->logits, step->logits_count, &token, 1, &log_probability));
    to->log_probability += log_probability;
  } else {
    to->bare++;
  }
  return ++to->tokens != to->limit;
}

static void every_step(void) {
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  static collected text;
  static steps all;
  uint32_t prompt[16];
  size_t count;
  cbl_stop_reason reason;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 12));
  CHECK_OK(cbl_model_tokenize(model, NULL, STORY, strlen(STORY), prompt, 16, &count, NULL, 0));
  CHECK_OK(cbl_generate_from_tokens(session, o, prompt, count, collect_text, &text, NULL));
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_steps(session, o, prompt, count, on_step, &all, &reason));
  CHECK(reason == CBL_STOP_MAX_TOKENS && all.tokens == 12 && all.bare == 0);
  CHECK(!strcmp(all.all.text, text.text) && all.log_probability < 0);

  /* The sum of what each was chosen by is the score of the whole. */
  uint32_t made[16];
  size_t made_count;
  double score;
  CHECK_OK(cbl_model_tokenize(model, NULL, text.text, text.length, made, 16, &made_count, NULL, 0));
  if (made_count == 12) {
    CHECK_OK(cbl_session_reset(session));
    CHECK_OK(cbl_score_tokens(session, prompt, count, made, &made_count, 1, &score, NULL));
    CHECK(fabs(score - all.log_probability) < 1e-4);
  }
  static steps some = {.limit = 3};
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_steps(session, o, prompt, count, on_step, &some, &reason));
  CHECK(reason == CBL_STOP_CANCELLED && some.tokens == 3);
  CHECK(!strcmp(cbl_stop_reason_name(reason), "cancelled"));
  CHECK(!strcmp(cbl_stop_reason_name(CBL_STOP_INCOMPLETE), "incomplete"));
  CHECK(!strcmp(cbl_stop_reason_name(-1), "unknown") && !strcmp(cbl_stop_reason_name(8), "unknown"));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

static cbl_stop_reason constrained(cbl_session *session, cbl_options *o, collected *to) {
  cbl_stop_reason reason;
  memset(to, 0, sizeof *to);
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate(session, o, "Wake me at ", 11, collect_text, to, &reason));
  return reason;
}

static bool collect_each(void *user, size_t index, const char *text, size_t length) {
  return collect_text((collected *)user + index, text, length);
}

/* Every text of a batch is of the form that it has alone, two at a time. */
static void constrained_batch(cbl_session *session, cbl_options *o) {
  static const char *const PROMPTS[] = {"Wake me at ", "Once upon a time", "The answer is "};
  static const char REGEX[] = "[0-9]{1,2}:[0-9]{2}";
  static collected alone, together[3];
  memset(together, 0, sizeof together);
  cbl_stop_reason reasons[3];
  cbl_status statuses[3];
  cbl_batch *batch;
  CHECK_OK(cbl_batch_new(model, NULL, 2, &batch, NULL, 0));
  uint32_t token;
  CHECK_OK(cbl_batch_evaluate(batch, &(size_t){0}, &(size_t){1}, 1, TOKENS));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_batch_sample(batch, 0, o, &token));
  CHECK(strstr(cbl_batch_error(batch), "json_schema"));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 20));
  CHECK_OK(cbl_options_set_string(o, CBL_OPTION_REGEX, REGEX, strlen(REGEX)));
  CHECK_OK(cbl_batch_generate(batch, o, PROMPTS, 3, collect_each, together, statuses, reasons));
  for (size_t i = 0; i < 3; i++) {
    memset(&alone, 0, sizeof alone);
    CHECK_OK(cbl_session_reset(session));
    CHECK_OK(cbl_generate(session, o, PROMPTS[i], strlen(PROMPTS[i]), collect_text, &alone, NULL));
    int hour, minute, end;
    CHECK(sscanf(alone.text, "%2d:%2d%n", &hour, &minute, &end) == 2 && (size_t)end == alone.length);
    CHECK(statuses[i] == CBL_OK && reasons[i] == CBL_STOP_COMPLETE);
    CHECK(alone.length == together[i].length && !memcmp(alone.text, together[i].text, alone.length));
  }
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1));
  CHECK_OK(cbl_batch_free(batch));
}

static void constraints(void) {
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  static collected text;
  static steps all;
  static const char CHOICES[] = "six\nseven thirty", REGEX[] = "[0-9]{1,2}:[0-9]{2}";
  static const char SCHEMA[] = "{\"type\": \"object\", \"properties\": {\"hour\": {\"enum\": [\"six\", \"ten\"]}},"
                               " \"required\": [\"hour\"], \"additionalProperties\": false}";
  if (!cbl_has_constraints()) {
    CHECK_STATUS(CBL_UNSUPPORTED, cbl_options_set_string(o, CBL_OPTION_REGEX, "a", 1));
  } else {
    CHECK_OK(cbl_options_set_string(o, CBL_OPTION_REGEX, REGEX, strlen(REGEX)));
    CHECK(constrained(session, o, &text) == CBL_STOP_COMPLETE);
    int hour, minute, end;
    CHECK(sscanf(text.text, "%2d:%2d%n", &hour, &minute, &end) == 2 && (size_t)end == text.length);
    CHECK_OK(cbl_options_set_string(o, CBL_OPTION_CHOICES, CHOICES, strlen(CHOICES)));
    CHECK(constrained(session, o, &text) == CBL_STOP_COMPLETE);
    const char *choice = text.text + (text.text[0] == ' ');
    CHECK(!strcmp(choice, "six") || !strcmp(choice, "seven thirty"));
    CHECK_OK(cbl_options_set_string(o, CBL_OPTION_JSON_SCHEMA, SCHEMA, strlen(SCHEMA)));
    CHECK(constrained(session, o, &text) == CBL_STOP_COMPLETE);
    CHECK(strstr(text.text, "{\"hour\": \"six\"}") || strstr(text.text, "{\"hour\": \"ten\"}"));

    /* Tokens that were forced have no logits. */
    CHECK_OK(cbl_session_reset(session));
    CHECK_OK(cbl_generate_steps(session, o, TOKENS, 3, on_step, &all, NULL));
    CHECK(all.bare > 0 && all.bare < all.tokens);

    CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1));
    CHECK(constrained(session, o, &text) == CBL_STOP_INCOMPLETE);
    CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_string(o, CBL_OPTION_JSON_SCHEMA, "{", 1));
    /* What makes no sense is refused when it is set, and changes nothing. */
    CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_string(o, CBL_OPTION_REGEX, "(", 1));
    CHECK(strstr(cbl_options_error(o), "regular expression") && strstr(cbl_options_error(o), "unclosed group"));
    static const char BAD_SCHEMA[] = "{\"type\": \"strin\"}";
    CHECK_STATUS(CBL_BAD_OPTION,
                 cbl_options_set_string(o, CBL_OPTION_JSON_SCHEMA, BAD_SCHEMA, sizeof BAD_SCHEMA - 1));
    CHECK(strstr(cbl_options_error(o), "strin"));
    CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_string(o, CBL_OPTION_CHOICES, "a\n\nb", 4));
    CHECK(constrained(session, o, &text) == CBL_STOP_INCOMPLETE);

    /* A single token cannot follow the form of a text. */
    uint32_t token;
    CHECK_STATUS(CBL_BAD_OPTION, cbl_session_sample(session, o, &token));
    CHECK(strstr(cbl_session_error(session), "json_schema"));

    constrained_batch(session, o);
    CHECK_OK(cbl_options_set_string(o, CBL_OPTION_REGEX, "", 0));
    CHECK(constrained(session, o, &text) == CBL_STOP_MAX_TOKENS);
  }
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

/* The model's template puts the end-of-text token, which is token 0, behind each message. */
static void conversations(void) {
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  const char *roles[] = {"system", "user", "assistant", "user"};
  const char *contents[] = {"Be brief.", "<|endoftext|> Hello", "Hi", "And now?"};
  char message[256];
  uint32_t tokens[128];
  size_t number, again, ends = 0;
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_chat_tokens(model, NULL, roles, contents, 2, NULL, 0, &number, NULL, 0));
  CHECK_OK(cbl_chat_tokens(model, NULL, roles, contents, 2, tokens, 128, &again, message, sizeof message));
  CHECK(again == number && number > 8);
  /* Only the template writes control tokens. */
  for (size_t i = 0; i < number; i++) ends += tokens[i] == 0;
  CHECK(ends == 2);
  static const char *const WRONG[] = {"system", "nobody"};
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_chat_tokens(model, NULL, WRONG, contents, 2, tokens, 128, &again, message, 256));
  CHECK(strstr(message, "role"));
  /* The form has user and assistant in turn; a build without the engine and the template knows no other. */
  CHECK_STATUS(CBL_BAD_OPTION, cbl_chat_tokens(model, NULL, roles, contents, 1, tokens, 128, &again, message, 256));
  CHECK(strstr(message, "chat template"));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_chat_tokens(model, NULL, roles, contents, 0, tokens, 128, &again, message, 256));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_string(o, CBL_OPTION_DATE, "2025-02-30", 10));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, CBL_OPTION_THINKING, 2));
  CHECK_OK(cbl_options_set_string(o, CBL_OPTION_DATE, "2025-02-28", 10));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 5));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_IGNORE_END_OF_TEXT, 1));

  static collected text;
  cbl_chat_result result;
  CHECK_OK(cbl_chat_answer(session, o, roles, contents, 2, collect_text, &text, &result, sizeof result));
  CHECK(result.prompt_tokens == number && !result.reused_tokens && result.generated_tokens == 5);
  CHECK(result.stop_reason == CBL_STOP_MAX_TOKENS && !result.left_out && text.length > 0);
  /* The next turn evaluates what is new. */
  CHECK_OK(cbl_chat_answer(session, o, roles, contents, 4, collect_text, &text, &result, sizeof result));
  CHECK(result.reused_tokens >= number && result.prompt_tokens > 0);
  CHECK(cbl_session_position(session) == result.reused_tokens + result.prompt_tokens + 4);
  if (cbl_has_constraints()) {
    CHECK_OK(cbl_options_set_string(o, CBL_OPTION_CHOICES, "yes\nno", 6));
    static collected choice;
    CHECK_OK(cbl_chat_answer(session, o, roles, contents, 4, collect_text, &choice, NULL, 0));
    CHECK(choice.length >= 2 && choice.length <= 4);
  }
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
}

static void templates(void) {
  cbl_session *session = new_session(model, NULL);
  char message[256];
  cbl_template *template;
  cbl_template_result result;
  static collected text;
  static const char TEXT[] = "I am hungry. He is old.";
  CHECK_STATUS(CBL_BAD_OPTION, cbl_template_named(model, "sing", 4, &template, message, 256));
  CHECK(!template && strstr(message, "summarize") && strstr(message, "translate"));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_template_new("no place", 8, &template, message, 256));
  CHECK(!template && strstr(message, "{text}"));

  static const char OWN[] = "split: sentences\nmax-tokens: 4\n---\n{text} And then";
  CHECK_OK(cbl_template_new(OWN, strlen(OWN), &template, message, sizeof message));
  CHECK_OK(cbl_apply_template(session, template, NULL, TEXT, strlen(TEXT), collect_text, &text,
                              &result, sizeof result));
  CHECK(result.parts == 2 && result.generated_tokens == 8 && result.cut_parts == 2);
  CHECK(result.stop_reason == CBL_STOP_MAX_TOKENS && !result.split && text.length > 4);
  cbl_session_stats stats;
  CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
  CHECK(stats.evaluated_tokens == result.prompt_tokens + result.generated_tokens);

  /* Stopping is no failure; the result may be left out; a blank text has none. */
  static collected some = {.limit = 1};
  CHECK_OK(cbl_apply_template(session, template, NULL, TEXT, strlen(TEXT), collect_text, &some,
                              &result, sizeof result));
  CHECK(result.stop_reason == CBL_STOP_CANCELLED && some.pieces == 1);
  CHECK_OK(cbl_apply_template(session, template, NULL, TEXT, strlen(TEXT), collect_text, &text,
                              NULL, 0));
  CHECK_OK(cbl_apply_template(session, template, NULL, " ", 1, collect_text, &text, &result,
                              sizeof result));
  CHECK(result.parts == 0 && result.generated_tokens == 0);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_apply_template(session, template, NULL, TEXT, strlen(TEXT),
                                                    collect_text, &text, &result, 8));
  CHECK_OK(cbl_template_free(template));

  /* The bundled model has a template of its own by this name. */
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 128));
  cbl_session *longer = new_session(model, o);
  memset(&text, 0, sizeof text);
  CHECK_OK(cbl_template_named(model, "translate", 9, &template, message, sizeof message));
  CHECK_OK(cbl_apply_template(longer, template, o, TEXT, strlen(TEXT), collect_text, &text, &result,
                              sizeof result));
  CHECK(result.parts == 2 && text.length > 8);
  CHECK_OK(cbl_template_free(template));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(longer));
  CHECK_OK(cbl_session_free(session));
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  model = open_model(arguments[1]);
  logit_biases();
  probabilities();
  every_step();
  constraints();
  templates();
  conversations();
  CHECK_OK(cbl_model_free(model));
  return 0;
}
