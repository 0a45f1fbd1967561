/* Evaluates the demo model and writes checksums of its logits, as tests/recorded_logits.rs does, in the
 * format of tests/data/recorded/logits.txt up to the text. For processors where a Rust test would take too
 * long to build: .ci/arm compares the lines.
 *
 *     recorded_logits MODEL.cbl SCHEME [FIRST_PROMPT [PROMPTS]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cerebellum.h>

enum { TOKENS = 64, MOST_TOKENS = 256 };

static const char *const PROMPTS[] = {
    "Once upon a time",
    "Utterance: set an alarm for six\nIntent:",
    "The dog said to the cat: \"",
    "3 + 4 = ",
    "Gr\xc3\xbc\xc3\x9f" "e, \xe4\xb8\x96\xe7\x95\x8c! \xf0\x9f\x98\x80\n\n",
};
enum { PROMPT_COUNT = sizeof PROMPTS / sizeof PROMPTS[0] };

/* CRC-32 as zlib computes it; 0 starts a new one. */
static uint32_t crc32(uint32_t crc, const void *data, size_t size) {
  static uint32_t table[256];
  if (table[1] == 0) {
    for (uint32_t i = 0; i < 256; i++) {
      table[i] = i;
      for (int bit = 0; bit < 8; bit++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
    }
  }
  const unsigned char *bytes = data;
  crc = ~crc;
  for (size_t i = 0; i < size; i++) crc = table[(crc ^ bytes[i]) & 255] ^ crc >> 8;
  return ~crc;
}

static void check(cbl_status status, const char *message) {
  if (status == CBL_OK) return;
  fprintf(stderr, "%s (%s)\n", message, cbl_status_text(status));
  exit(1);
}

/* The checksums of the logits of every step, the most probable token being the next one, and of the
 * tokens. Returns the session's instruction set. */
static const char *run(const cbl_model *model, const cbl_options *options, const char *prompt,
                       uint32_t *logits_crc, uint32_t *tokens_crc) {
  char message[256];
  uint32_t tokens[MOST_TOKENS];
  size_t count;
  check(cbl_model_tokenize(model, options, prompt, strlen(prompt), tokens, MOST_TOKENS, &count,
                           message, sizeof message), message);
  cbl_session *session;
  check(cbl_session_new(model, options, &session, message, sizeof message), message);
  *logits_crc = *tokens_crc = 0;
  for (int step = 0; step < TOKENS; step++) {
    const float *logits;
    size_t vocabulary;
    check(cbl_session_evaluate(session, tokens, count), cbl_session_error(session));
    check(cbl_session_logits(session, &logits, &vocabulary), cbl_session_error(session));
    *logits_crc = crc32(*logits_crc, logits, vocabulary * sizeof *logits);
    count = 1;
    check(cbl_session_sample(session, options, tokens), cbl_session_error(session));
    *tokens_crc = crc32(*tokens_crc, tokens, sizeof *tokens);
  }
  cbl_session_stats stats;
  check(cbl_session_get_stats(session, &stats, sizeof stats), cbl_session_error(session));
  cbl_session_free(session);
  return stats.isa;
}

int main(int count, char **arguments) {
  if (count < 3 || count > 5) {
    fprintf(stderr, "usage: %s MODEL.cbl SCHEME [FIRST_PROMPT [PROMPTS]]\n", arguments[0]);
    return 2;
  }
  int first = count > 3 ? atoi(arguments[3]) : 0;
  int last = count > 4 ? first + atoi(arguments[4]) : PROMPT_COUNT;
  static const struct {
    const char *name;
    cbl_cache cache;
  } CACHES[] = {{"F16", CBL_CACHE_F16}, {"Int8", CBL_CACHE_INT8}};

  char message[256];
  cbl_options *options;
  cbl_model *model;
  check(cbl_options_new(&options), "options");
  check(cbl_model_open(arguments[1], options, &model, message, sizeof message), message);
  for (int cache = 0; cache < 2; cache++) {
    check(cbl_options_set_int(options, CBL_OPTION_CACHE, CACHES[cache].cache), "cache");
    for (int prompt = first; prompt < last && prompt < PROMPT_COUNT; prompt++) {
      uint32_t logits, tokens;
      const char *isa = run(model, options, PROMPTS[prompt], &logits, &tokens);
      printf("%s %s logits %08x tokens %08x\n", arguments[2], CACHES[cache].name, logits, tokens);
      fprintf(stderr, "%s\n", isa);
    }
  }
  cbl_model_free(model);
  cbl_options_free(options);
  return 0;
}
