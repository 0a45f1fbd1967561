/* A program of the first interface: compiled with the header frozen beside it, linked with today's
 * library. Neither this file nor that header ever changes. Usage: program MODEL */
#include <stdio.h>
#include <string.h>

#include "cerebellum.h"

#define EXPECT(condition) \
  if (!(condition)) return printf("line %d: %s\n", __LINE__, #condition), 1

static bool on_token(void *user, uint32_t token) {
  uint32_t *sum = (uint32_t *)user;
  *sum = *sum * 31 + token;
  return true;
}

static bool on_text(void *user, const char *text, size_t length) {
  (void)text;
  *(size_t *)user += length;
  return true;
}

int main(int count, char **arguments) {
  EXPECT(count == 2 && cbl_abi_version() == CBL_ABI_VERSION);
  char message[256];
  cbl_options *options;
  cbl_model *model;
  cbl_session *session, *fork;
  cbl_memory_plan plan;
  cbl_model_info info;
  cbl_session_stats stats;
  EXPECT(cbl_options_new(&options) == CBL_OK);
  EXPECT(cbl_options_set_int(options, CBL_OPTION_CONTEXT, 64) == CBL_OK);
  EXPECT(cbl_options_set_int(options, CBL_OPTION_THREADS, 2) == CBL_OK);
  EXPECT(cbl_options_set_int(options, CBL_OPTION_MAX_TOKENS, 8) == CBL_OK);
  EXPECT(cbl_options_set_int(options, CBL_OPTION_CACHE, CBL_CACHE_INT8) == CBL_OK);
  EXPECT(cbl_options_set_float(options, CBL_OPTION_TEMPERATURE, 0.5) == CBL_OK);
  EXPECT(cbl_options_set_string(options, CBL_OPTION_ISA, "scalar", 6) == CBL_OK);
  EXPECT(cbl_options_add_stop(options, "\n\n", 2) == CBL_OK);
  EXPECT(cbl_options_set_int(options, 12345, 1) == CBL_BAD_OPTION);
  EXPECT(cbl_model_open(arguments[1], options, &model, message, sizeof message) == CBL_OK);
  EXPECT(cbl_model_get_info(model, &info, sizeof info) == CBL_OK && info.vocabulary > 0);
  EXPECT(!strcmp(info.architecture, "gpt2") && info.has_tokenizer && info.is_mapped);
  EXPECT(cbl_model_plan(model, options, &plan, sizeof plan, message, sizeof message) == CBL_OK);
  EXPECT(plan.total_bytes == plan.cache_bytes + plan.scratch_bytes && plan.weights_bytes > 0);
  EXPECT(cbl_session_new(model, options, &session, message, sizeof message) == CBL_OK);
  EXPECT(cbl_model_free(model) == CBL_OK);

  const uint32_t prompt[3] = {5, 6, 7};
  const uint32_t *tokens;
  const float *logits;
  uint32_t token, sum = 0;
  size_t n, bytes = 0;
  cbl_stop_reason reason;
  EXPECT(cbl_session_evaluate(session, prompt, 3) == CBL_OK);
  EXPECT(cbl_session_logits(session, &logits, &n) == CBL_OK && n == info.vocabulary);
  EXPECT(cbl_session_sample(session, options, &token) == CBL_OK && token < n);
  EXPECT(cbl_session_fork(session, options, &fork) == CBL_OK);
  EXPECT(cbl_generate_tokens(session, options, &token, 1, on_token, &sum, &reason) == CBL_OK);
  EXPECT(cbl_generate_from_tokens(fork, options, &token, 1, on_text, &bytes, NULL) == CBL_OK);
  EXPECT(bytes > 0 && reason != CBL_STOP_NONE);
  EXPECT(cbl_session_tokens(session, &tokens, &n) == CBL_OK && n >= 4 && tokens[3] == token);
  EXPECT(cbl_session_get_stats(session, &stats, sizeof stats) == CBL_OK);
  EXPECT(stats.position == cbl_session_position(session) && !strcmp(stats.isa, "scalar"));
  EXPECT(cbl_session_rewind(session, 3) == CBL_OK && cbl_session_position(session) == 3);
  EXPECT(cbl_session_logits(session, &logits, &n) == CBL_NO_LOGITS && !logits);
  EXPECT(cbl_session_cancel(session) == CBL_OK);
  EXPECT(cbl_session_evaluate(session, prompt, 3) == CBL_CANCELLED);
  EXPECT(*cbl_session_error(session) && *cbl_status_text(CBL_CANCELLED));
  EXPECT(cbl_session_free(fork) == CBL_OK);
  EXPECT(cbl_session_free(session) == CBL_OK);
  EXPECT(cbl_options_free(options) == CBL_OK);
  return 0;
}
