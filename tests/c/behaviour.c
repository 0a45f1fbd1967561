/* What the header promises, one test per promise. Usage: behaviour MODEL DIRECTORY */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path, *directory;

static void versions(void) {
  CHECK(cbl_abi_version() == CBL_ABI_VERSION);
  char version[64];
  snprintf(version, sizeof version, "%d.%d.%d", CBL_VERSION_MAJOR, CBL_VERSION_MINOR, CBL_VERSION_PATCH);
  CHECK(!strcmp(cbl_version_string(), version));
  CHECK(cbl_version_number() == CBL_VERSION_NUMBER);
  CHECK(CBL_VERSION_NUMBER == (CBL_VERSION_MAJOR * 1000 + CBL_VERSION_MINOR) * 1000 + CBL_VERSION_PATCH);
#if CBL_VERSION_NUMBER < 1000
#error "a header of an unlikely version"
#endif
  CHECK(!strcmp(cbl_isa_name(0), "scalar"));
  size_t count = 0;
  while (cbl_isa_name(count)) count++;
  CHECK(count < 16 && !cbl_isa_name(SIZE_MAX));
  CHECK(!strcmp(cbl_status_text(CBL_OK), "ok"));
  CHECK(!strcmp(cbl_status_text(-1), "unknown status"));
  CHECK(!strcmp(cbl_status_text(INT32_MAX), "unknown status"));
}

static void options_are_checked(void) {
  cbl_options *o = new_options();
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, 0, 1));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, INT32_MAX, 1));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, CBL_OPTION_TEMPERATURE, 1));
  CHECK(strstr(cbl_options_error(o), "temperature") && strstr(cbl_options_error(o), "set_float"));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_THREADS, 1));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_string(o, CBL_OPTION_THREADS, "1", 1));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_string(o, CBL_OPTION_ISA, "z80", 3));
  CHECK_STATUS(CBL_INVALID_UTF8, cbl_options_set_string(o, CBL_OPTION_ISA, "\xff", 1));
  CHECK(strstr(cbl_options_error(o), "UTF-8"));
  static const int64_t bad[][2] = {
      {CBL_OPTION_ACCESS, 2},        {CBL_OPTION_ACCESS, -1},     {CBL_OPTION_VERIFY, 2},
      {CBL_OPTION_CONTEXT, -1},      {CBL_OPTION_CACHE, 2},       {CBL_OPTION_THREADS, 0},
      {CBL_OPTION_THREADS, 65},      {CBL_OPTION_CHUNK, 0},       {CBL_OPTION_CHUNK, INT64_MIN},
      {CBL_OPTION_MAX_TOKENS, -1},   {CBL_OPTION_TOP_K, -1},      {CBL_OPTION_ALL_LOGITS, 3},
      {CBL_OPTION_PARSE_SPECIAL, 9}, {CBL_OPTION_THREADS, 1LL << 32 | 1},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_int(o, (int32_t)bad[i][0], bad[i][1]));
    CHECK(*cbl_options_error(o));
  }
  volatile double zero = 0;
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, -0.1));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, zero / zero));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, 1e300));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, 101));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_REPETITION_PENALTY, 1e-40));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_REPETITION_PENALTY, 1e38));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_TOP_P, 0));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_TOP_P, 1.5));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_MIN_P, -1));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_set_float(o, CBL_OPTION_REPETITION_PENALTY, 0));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_options_add_stop(o, "", 0));
  CHECK_STATUS(CBL_INVALID_UTF8, cbl_options_add_stop(o, "\xc3", 1));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_options_add_stop(o, "a", SIZE_MAX));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_options_set_arena(o, (char *)64 + 8, 64));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_SEED, -1));
  CHECK_OK(cbl_options_set_float(o, CBL_OPTION_TEMPERATURE, 0.7));
  CHECK_OK(cbl_options_free(o));
}

/* Values that only a model can refuse. */
static void options_are_checked_against_the_model(void) {
  char message[256];
  cbl_model *model = open_model(path);
  cbl_model_info info;
  CHECK_OK(cbl_model_get_info(model, &info, sizeof info));
  cbl_options *o = new_options();
  cbl_session *session = (cbl_session *)&info;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, (int64_t)info.context + 1));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_session_new(model, o, &session, message, sizeof message));
  CHECK(!session && strstr(message, "context"));
  cbl_memory_plan plan;
  CHECK_STATUS(CBL_BAD_OPTION, cbl_model_plan(model, o, &plan, sizeof plan, message, 8));
  CHECK(strlen(message) == 7 && plan.total_bytes == 0);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_model_free(model));
}

static void bad_files(void) {
  char message[256], text[4200];
  cbl_model *model = (cbl_model *)text;
  CHECK_STATUS(CBL_IO, cbl_model_open("/nowhere/at/all", NULL, &model, message, sizeof message));
  CHECK(!model && strstr(message, "/nowhere/at/all"));
  CHECK_STATUS(CBL_IO, cbl_model_open("/", NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_IO, cbl_model_open("/dev/zero", NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_IO, cbl_model_open("", NULL, &model, message, 1));
  CHECK(!*message);
  CHECK_STATUS(CBL_BAD_MODEL, cbl_model_open("/proc/self/exe", NULL, &model, message, 256));
  CHECK(strstr(message, "not a cerebellum model"));
  memset(text, 'x', sizeof text);
  text[sizeof text - 1] = 0;
  CHECK_STATUS(CBL_IO, cbl_model_open(text, NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_IO, cbl_model_open("\xff\xfe", NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_open_fd(-1, NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_open_fd(INT32_MIN, NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_IO, cbl_model_open_fd(1000000, NULL, &model, message, sizeof message));
  int ends[2];
  CHECK(!pipe(ends));
  CHECK_STATUS(CBL_IO, cbl_model_open_fd(ends[0], NULL, &model, NULL, 0));
  close(ends[0]), close(ends[1]);
  static const _Alignas(64) char zeros[128];
  CHECK_STATUS(CBL_BAD_MODEL, cbl_model_open_memory(zeros, 128, NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_open_memory(zeros + 1, 100, NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_BAD_MODEL, cbl_model_open_memory(zeros, 1, NULL, &model, NULL, 0));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_open_memory(zeros, SIZE_MAX, NULL, &model, NULL, 0));
}

static void *read_file(size_t *size) {
  struct stat status;
  int fd = open(path, O_RDONLY);
  CHECK(fd >= 0 && !fstat(fd, &status));
  *size = (size_t)status.st_size;
  char *bytes = aligned_alloc(64, (*size + 63) / 64 * 64);
  for (size_t at = 0; at < *size;) {
    ssize_t got = read(fd, bytes + at, *size - at);
    CHECK(got > 0);
    at += (size_t)got;
  }
  close(fd);
  return bytes;
}

static uint64_t evaluate_and_hash(cbl_model *model) {
  cbl_session *session = new_session(model, NULL);
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  uint64_t hash = hash_logits(session);
  CHECK_OK(cbl_session_free(session));
  return hash;
}

/* A path mapped and read, a descriptor mapped and read, memory: the same model. */
static void all_ways_to_open(void) {
  cbl_options *reading = new_options();
  CHECK_OK(cbl_options_set_int(reading, CBL_OPTION_ACCESS, CBL_ACCESS_READ));
  CHECK_OK(cbl_options_set_int(reading, CBL_OPTION_VERIFY, 1));
  size_t size;
  void *bytes = read_file(&size);
  int fd = open(path, O_RDONLY);
  cbl_model *models[5];
  models[0] = open_model(path);
  CHECK_OK(cbl_model_open(path, reading, &models[1], NULL, 0));
  CHECK_OK(cbl_model_open_fd(fd, NULL, &models[2], NULL, 0));
  CHECK_OK(cbl_model_open_fd(fd, reading, &models[3], NULL, 0));
  CHECK_OK(cbl_model_open_memory(bytes, size, reading, &models[4], NULL, 0));
  close(fd);
  CHECK_OK(cbl_options_free(reading));
  uint64_t first = evaluate_and_hash(models[0]);
  for (int i = 0; i < 5; i++) {
    cbl_model_info info;
    CHECK_OK(cbl_model_get_info(models[i], &info, sizeof info));
    CHECK(info.is_mapped == (i == 0 || i == 2));
    CHECK(info.file_bytes == size && !strcmp(info.architecture, "gpt2") && *info.digest);
    CHECK(info.bits_per_weight > 4 && info.bits_per_weight < 9 && info.parameters > 1000);
    CHECK(evaluate_and_hash(models[i]) == first);
    CHECK_OK(cbl_model_verify(models[i], NULL, 0));
    CHECK_OK(cbl_model_free(models[i]));
  }
  ((char *)bytes)[size / 2] ^= 1;
  char message[256];
  cbl_model *damaged;
  CHECK_OK(cbl_model_open_memory(bytes, size, NULL, &damaged, NULL, 0));
  CHECK_STATUS(CBL_BAD_MODEL, cbl_model_verify(damaged, message, sizeof message));
  CHECK(strstr(message, "damaged"));
  CHECK_OK(cbl_model_free(damaged));
  free(bytes);
}

/* Old programs know fewer fields, new ones more. */
static void structures_grow(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  struct { cbl_model_info info; char more[16]; } later;
  memset(&later, 'x', sizeof later);
  CHECK_OK(cbl_model_get_info(model, &later.info, sizeof later));
  CHECK(later.more[0] == 0 && later.more[15] == 0 && later.info.layers > 0);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_get_info(model, &later.info, 0));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_get_info(model, &later.info, 8));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_get_info(model, &later.info, SIZE_MAX));
  cbl_memory_plan plan;
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_plan(model, NULL, &plan, 4, NULL, 0));
  cbl_session_stats stats;
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_session_get_stats(session, &stats, 4));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

static void handles_are_told_apart(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  cbl_options *options = new_options();
  CHECK_STATUS(CBL_BAD_HANDLE, cbl_session_reset((cbl_session *)(void *)options));
  CHECK_STATUS(CBL_BAD_HANDLE, cbl_model_verify((cbl_model *)(void *)session, NULL, 0));
  CHECK_STATUS(CBL_BAD_HANDLE, cbl_options_free((cbl_options *)(void *)session));
  CHECK_STATUS(CBL_BAD_HANDLE, cbl_model_free((cbl_model *)(void *)options));
  CHECK_STATUS(CBL_BAD_HANDLE, cbl_session_free((cbl_session *)(void *)model));
  CHECK_STATUS(CBL_BAD_HANDLE, cbl_session_reset((cbl_session *)(void *)((char *)session + 1)));
  CHECK(cbl_session_position((cbl_session *)(void *)options) == 0);
  CHECK(*cbl_session_error(NULL) && *cbl_options_error(NULL));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_options_free(options));
  CHECK_OK(cbl_model_free(model));
  CHECK_OK(cbl_session_free(NULL));
  CHECK_OK(cbl_options_free(NULL));
  CHECK_OK(cbl_model_free(NULL));
}

static void evaluation(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  const float *logits = (const float *)&session;
  size_t count = 7;
  uint32_t token = 7;
  CHECK_STATUS(CBL_NO_LOGITS, cbl_session_logits(session, &logits, &count));
  CHECK(!logits && !count);
  CHECK_STATUS(CBL_NO_LOGITS, cbl_session_sample(session, NULL, &token));
  CHECK(token == 0);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_session_evaluate(session, TOKENS, 0));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_session_evaluate(session, NULL, 3));
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_session_evaluate(session, TOKENS, 65));
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_session_evaluate(session, TOKENS, SIZE_MAX));
  CHECK(strstr(cbl_session_error(session), "context full"));
  const uint32_t bad[2] = {5, UINT32_MAX};
  CHECK_STATUS(CBL_BAD_TOKEN, cbl_session_evaluate(session, bad, 2));
  CHECK(cbl_session_position(session) == 0);
  CHECK_STATUS(CBL_BAD_POSITION, cbl_session_rewind(session, 1));

  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(cbl_session_position(session) == 3);
  CHECK_OK(cbl_session_logits(session, &logits, &count));
  cbl_model_info info;
  CHECK_OK(cbl_model_get_info(model, &info, sizeof info));
  CHECK(count == info.vocabulary);
  uint32_t best = 0;
  for (uint32_t i = 1; i < count; i++) {
    if (logits[i] > logits[best]) best = i;
  }
  CHECK_OK(cbl_session_sample(session, NULL, &token));
  CHECK(token == best);
  const uint32_t *tokens;
  CHECK_OK(cbl_session_tokens(session, &tokens, &count));
  CHECK(count == 3 && !memcmp(tokens, TOKENS, sizeof TOKENS));

  /* Token by token, after a rewind: the same bits. */
  uint64_t hash = hash_logits(session);
  CHECK_OK(cbl_session_rewind(session, 1));
  CHECK_STATUS(CBL_NO_LOGITS, cbl_session_logits(session, &logits, &count));
  CHECK_OK(cbl_session_evaluate(session, TOKENS + 1, 1));
  CHECK_OK(cbl_session_evaluate(session, TOKENS + 2, 1));
  CHECK(hash_logits(session) == hash);

  /* Exactly to the end of the context, and not beyond. */
  uint32_t many[61] = {0};
  CHECK_OK(cbl_session_evaluate(session, many, 61));
  CHECK(cbl_session_position(session) == 64);
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_session_evaluate(session, TOKENS, 1));
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_generate_tokens(session, NULL, TOKENS, 1, collect_token, &many, NULL));
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(hash_logits(session) == hash);
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

typedef struct { size_t next, limit; const float *first; } visits;

static bool visit(void *user, size_t position, const float *logits, size_t count) {
  visits *v = user;
  CHECK(position == v->next++ && logits && count > 3);
  return v->next != v->limit;
}

static void evaluation_of_each(void) {
  cbl_model *model = open_model(path);
  cbl_session *last = new_session(model, NULL);
  visits v = {0, 0, NULL};
  CHECK_STATUS(CBL_BAD_OPTION, cbl_session_evaluate_each(last, TOKENS, 3, visit, &v));
  cbl_options *options = new_options();
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_ALL_LOGITS, 1));
  CHECK_OK(cbl_options_set_int(options, CBL_OPTION_CHUNK, 2));
  cbl_session *all = new_session(model, options);
  CHECK_OK(cbl_session_evaluate_each(all, TOKENS, 3, visit, &v));
  CHECK(v.next == 3);
  v.limit = 4;
  CHECK_OK(cbl_session_evaluate_each(all, TOKENS, 3, visit, &v));
  CHECK(v.next == 4 && cbl_session_position(all) == 6);
  CHECK_OK(cbl_session_rewind(all, 3));
  CHECK_OK(cbl_session_rewind(all, 0));
  CHECK_OK(cbl_session_evaluate(all, TOKENS, 3));
  CHECK_OK(cbl_session_evaluate(last, TOKENS, 3));
  CHECK(hash_logits(all) == hash_logits(last));
  CHECK_OK(cbl_options_free(options));
  CHECK_OK(cbl_session_free(all));
  CHECK_OK(cbl_session_free(last));
  CHECK_OK(cbl_model_free(model));
}

static void generation(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 12));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_IGNORE_END_OF_TEXT, 1));
  collected tokens = {0}, text = {0}, again = {0}, cut = {0};
  cbl_stop_reason reason;
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, collect_token, &tokens, &reason));
  CHECK(tokens.count == 12 && reason == CBL_STOP_MAX_TOKENS);
  CHECK(cbl_session_position(session) == 14);

  /* By hand: evaluate and sample. */
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  for (size_t i = 0; i < 12; i++) {
    uint32_t token;
    CHECK_OK(cbl_session_sample(session, o, &token));
    CHECK(token == tokens.tokens[i]);
    CHECK_OK(cbl_session_evaluate(session, &token, 1));
  }

  /* As text: what the tokens stand for. */
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_from_tokens(session, o, TOKENS, 3, collect_text, &text, NULL));
  char whole[4096];
  size_t length;
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_model_detokenize(model, tokens.tokens, 12, whole, 0, &length, NULL, 0));
  CHECK(length > 0);
  size_t needed = length;
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL,
               cbl_model_detokenize(model, tokens.tokens, 12, whole, needed - 1, &length, NULL, 0));
  CHECK_OK(cbl_model_detokenize(model, tokens.tokens, 12, whole, needed, &length, NULL, 0));
  CHECK(length == needed && length == text.length && !memcmp(whole, text.text, length));

  /* A stop string is cut off. */
  CHECK(text.length > 12);
  CHECK_OK(cbl_options_add_stop(o, text.text + 8, 3));
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_from_tokens(session, o, TOKENS, 3, collect_text, &cut, &reason));
  CHECK(reason == CBL_STOP_STRING && cut.length <= 8);
  CHECK(!memcmp(cut.text, text.text, cut.length) && !strstr(cut.text, "\xef\xbf\xbd"));
  CHECK_OK(cbl_options_clear_stops(o));

  /* The callback stops. */
  again.limit = 2;
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, collect_token, &again, &reason));
  CHECK(reason == CBL_STOP_CANCELLED && again.count == 2 && cbl_session_position(session) == 4);

  /* Until the context is full. */
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1000));
  again = (collected){0};
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, collect_token, &again, &reason));
  CHECK(reason == CBL_STOP_CONTEXT_FULL && again.count == 62);
  cbl_session_stats stats;
  CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
  CHECK(stats.prompt_tokens == 3 && stats.generated_tokens == 62 && stats.position == 64);
  CHECK(stats.stop_reason == CBL_STOP_CONTEXT_FULL && stats.context == 64 && stats.threads == 1);
  CHECK(stats.generation_seconds > 0 && stats.evaluated_tokens > 64 && *stats.isa);

  /* An empty prompt starts a text; bad ones are refused before anything happens. */
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1));
  CHECK_OK(cbl_generate_tokens(session, o, NULL, 0, collect_token, &again, NULL));
  CHECK_OK(cbl_session_reset(session));
  const uint32_t bad = 1u << 30;
  CHECK_STATUS(CBL_BAD_TOKEN, cbl_generate_tokens(session, o, &bad, 1, collect_token, &again, &reason));
  CHECK(reason == CBL_STOP_NONE && cbl_session_position(session) == 0);
  CHECK_STATUS(CBL_CONTEXT_FULL,
               cbl_generate_tokens(session, o, TOKENS, SIZE_MAX, collect_token, &again, NULL));
  CHECK_STATUS(CBL_BAD_TOKEN, cbl_model_detokenize(model, &bad, 1, whole, 4096, &length, NULL, 0));
  const char *bytes = whole;
  CHECK_STATUS(CBL_BAD_TOKEN, cbl_model_token_bytes(model, bad, &bytes, &length));
  CHECK(!bytes && !length);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

static void text(void) {
  static const char PROMPT[] = "Once upon a time";
  const size_t size = sizeof PROMPT - 1;
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  uint32_t tokens[64];
  size_t count = 1;
  if (!cbl_has_text()) {
    CHECK_STATUS(CBL_UNSUPPORTED, cbl_model_tokenize(model, NULL, PROMPT, size, tokens, 64, &count, NULL, 0));
    CHECK(count == 0);
    collected none = {0};
    CHECK_STATUS(CBL_UNSUPPORTED, cbl_generate(session, NULL, PROMPT, size, collect_text, &none, NULL));
    CHECK_OK(cbl_session_free(session));
    CHECK_OK(cbl_model_free(model));
    return;
  }
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_model_tokenize(model, NULL, PROMPT, size, NULL, 0, &count, NULL, 0));
  CHECK(count > 0 && count <= size);
  CHECK_OK(cbl_model_tokenize(model, NULL, PROMPT, size, tokens, count, &count, NULL, 0));
  char back[64];
  size_t length;
  CHECK_OK(cbl_model_detokenize(model, tokens, count, back, 64, &length, NULL, 0));
  CHECK(length == size && !memcmp(back, PROMPT, size));
  CHECK_OK(cbl_model_tokenize(model, NULL, "", 0, NULL, 0, &count, NULL, 0));
  CHECK(count == 0);
  CHECK_STATUS(CBL_INVALID_UTF8, cbl_model_tokenize(model, NULL, "a\xff", 2, tokens, 64, &count, NULL, 0));

  /* Special tokens are text unless asked for. */
  cbl_options *o = new_options();
  static const char SPECIAL[] = "<|endoftext|>";
  CHECK_OK(cbl_model_tokenize(model, o, SPECIAL, 13, tokens, 64, &count, NULL, 0));
  CHECK(count > 1);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_PARSE_SPECIAL, 1));
  CHECK_OK(cbl_model_tokenize(model, o, SPECIAL, 13, tokens, 64, &count, NULL, 0));
  cbl_model_info info;
  CHECK_OK(cbl_model_get_info(model, &info, sizeof info));
  CHECK(count == 1 && info.has_tokenizer && tokens[0] == (uint32_t)info.end_of_text);

  /* From text, and from its tokens: the same. */
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 10));
  collected a = {0}, b = {0};
  cbl_stop_reason reason;
  CHECK_OK(cbl_generate(session, o, PROMPT, size, collect_text, &a, &reason));
  CHECK(a.length > 0);
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_model_tokenize(model, o, PROMPT, size, tokens, 64, &count, NULL, 0));
  CHECK_OK(cbl_generate_from_tokens(session, o, tokens, count, collect_text, &b, NULL));
  CHECK(a.length == b.length && !strcmp(a.text, b.text));
  CHECK_STATUS(CBL_INVALID_UTF8, cbl_generate(session, o, "\x80", 1, collect_text, &a, &reason));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_generate(session, o, "a", SIZE_MAX, collect_text, &a, NULL));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

typedef struct {
  cbl_model *model;
  cbl_session *session, *other;
  cbl_options *options;
  int calls;
} reentry;

static cbl_status fail(cbl_session *session) {
  uint32_t token = UINT32_MAX;
  return cbl_session_evaluate(session, &token, 1);
}

static void *look_at_the_older_message(void *session) {
  CHECK(strstr(cbl_session_error(session), "not below the vocabulary"));
  return NULL;
}

static bool reenter(void *user, uint32_t token) {
  reentry *r = user;
  cbl_session *s = r->session;
  const float *logits;
  const uint32_t *tokens;
  size_t n;
  uint32_t t;
  cbl_session_stats stats;
  /* The message is this call's, not that of an older failure. */
  if (r->calls == 0) CHECK(strstr(cbl_session_error(s), "not below the vocabulary"));
  CHECK_STATUS(CBL_BUSY, cbl_session_free(s));
  CHECK(strstr(cbl_session_error(s), "handle is in use"));
  CHECK_STATUS(CBL_BUSY, cbl_session_evaluate(s, &token, 1));
  CHECK(strstr(cbl_session_error(s), "handle is in use"));
  CHECK_STATUS(CBL_BUSY, cbl_session_reset(s));
  CHECK_STATUS(CBL_BUSY, cbl_session_rewind(s, 0));
  CHECK_STATUS(CBL_BUSY, cbl_session_logits(s, &logits, &n));
  CHECK_STATUS(CBL_BUSY, cbl_session_tokens(s, &tokens, &n));
  CHECK_STATUS(CBL_BUSY, cbl_session_sample(s, NULL, &t));
  CHECK_STATUS(CBL_BUSY, cbl_session_save(s, NULL, 0, &n));
  CHECK_STATUS(CBL_BUSY, cbl_session_get_stats(s, &stats, sizeof stats));
  CHECK_STATUS(CBL_BUSY, cbl_generate_tokens(s, NULL, &token, 1, reenter, r, NULL));
  CHECK_STATUS(CBL_BUSY, cbl_options_set_int(r->options, CBL_OPTION_MAX_TOKENS, 1));
  CHECK(strstr(cbl_options_error(r->options), "options are in use"));
  CHECK_STATUS(CBL_BUSY, cbl_options_free(r->options));
  CHECK(cbl_session_position(s) == 0);
  CHECK_STATUS(CBL_BUSY, cbl_session_reset(s));
  /* Other handles have their own messages, and so have other threads. */
  CHECK(!*cbl_session_error(r->other));
  pthread_t thread;
  pthread_create(&thread, NULL, look_at_the_older_message, s);
  pthread_join(thread, NULL);
  /* The next failure takes the place of this one. */
  CHECK_STATUS(CBL_BAD_TOKEN, fail(r->other));
  CHECK(strstr(cbl_session_error(s), "handle is in use"));
  CHECK(strstr(cbl_session_error(r->other), "not below the vocabulary"));
  CHECK_OK(cbl_session_free(r->other));
  r->other = new_session(r->model, NULL);
  return ++r->calls < 3;
}

/* A callback that calls back. */
static void re_entry(void) {
  cbl_model *model = open_model(path);
  reentry r = {model, new_session(model, NULL), new_session(model, NULL), new_options(), 0};
  CHECK_STATUS(CBL_BAD_TOKEN, fail(r.session));
  CHECK_OK(cbl_options_set_int(r.options, CBL_OPTION_IGNORE_END_OF_TEXT, 1));
  CHECK_OK(cbl_generate_tokens(r.session, r.options, TOKENS, 3, reenter, &r, NULL));
  CHECK(r.calls == 3);
  CHECK_STATUS(CBL_BAD_TOKEN, fail(r.session));
  CHECK(strstr(cbl_session_error(r.session), "not below the vocabulary"));
  CHECK_OK(cbl_session_free(r.session));
  CHECK_OK(cbl_session_free(r.other));
  CHECK_OK(cbl_options_free(r.options));
  CHECK_OK(cbl_model_free(model));
}

static void model_freed_before_its_session(void) {
  cbl_model *model = open_model(path);
  uint64_t hash = evaluate_and_hash(model);
  cbl_session *session = new_session(model, NULL);
  CHECK_OK(cbl_model_free(model));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(hash_logits(session) == hash);
  collected text = {0};
  CHECK_OK(cbl_generate_from_tokens(session, NULL, TOKENS, 3, collect_text, &text, NULL));
  CHECK_OK(cbl_session_free(session));
}

static void *generate_on_a_thread(void *model) {
  cbl_session *session = new_session(model, NULL);
  collected *tokens = calloc(1, sizeof *tokens);
  CHECK_OK(cbl_generate_tokens(session, NULL, TOKENS, 3, collect_token, tokens, NULL));
  CHECK_OK(cbl_session_free(session));
  return tokens;
}

/* Two sessions of one model on two threads. */
static void two_threads(void) {
  cbl_model *model = open_model(path);
  pthread_t threads[2];
  void *results[2];
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, generate_on_a_thread, model);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], &results[i]);
  CHECK(!memcmp(results[0], results[1], sizeof(collected)));
  free(results[0]), free(results[1]);
  CHECK_OK(cbl_model_free(model));
}

static cbl_session *signalled;

static void cancel_in_handler(int signal) {
  (void)signal;
  cbl_session_cancel(signalled);
}

static void *cancel_soon(void *session) {
  usleep(2000);
  CHECK_OK(cbl_session_cancel(session));
  return NULL;
}

static bool cancel_from_callback(void *user, uint32_t token) {
  (void)token;
  CHECK_OK(cbl_session_cancel(user));
  return true;
}

static bool cancel_and_stop(void *user, uint32_t token) {
  (void)token;
  CHECK_OK(cbl_session_cancel(user));
  return false;
}

static bool ignore_text(void *user, const char *text, size_t length) {
  (void)user, (void)text, (void)length;
  return true;
}

static bool cancel_after_text(void *user, const char *text, size_t length) {
  (void)text, (void)length;
  CHECK_OK(cbl_session_cancel(user));
  return false;
}

static bool go_on(void *user, uint32_t token) {
  (void)user, (void)token;
  return true;
}

/* A request that comes while a text is tokenized or cut. */
static void cancelling_texts(cbl_session *session, const cbl_options *o) {
  cbl_template *once;
  static const char template[] = "max-tokens: 8\n---\nOnce {text}";
  CHECK_OK(cbl_template_new(template, strlen(template), &once, NULL, 0));
  CHECK_OK(cbl_apply_template(session, once, NULL, "upon a time", 11, cancel_after_text, session, NULL, 0));
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK_OK(cbl_session_reset(session));

  /* While a text is cut, which takes much longer otherwise; one that is too long is not even read. */
  size_t length = 64 << 20;
  char *text = malloc(length);
  for (size_t i = 0; i < length; i++) text[i] = i % 5 == 4 ? ' ' : 'k';
  cbl_template_result applied;
  cbl_stop_reason reason;
  pthread_t other;
  pthread_create(&other, NULL, cancel_soon, session);
  CHECK_OK(cbl_apply_template(session, once, NULL, text, length, ignore_text, NULL, &applied, sizeof applied));
  CHECK(applied.stop_reason == CBL_STOP_CANCELLED && applied.parts == 0);
  pthread_join(other, NULL);
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_generate(session, o, text, length, ignore_text, NULL, &reason));
  CHECK(strstr(cbl_session_error(session), "67108864 bytes"));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_template_free(once));
  free(text);
}

static void cancelling(void) {
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  cbl_options *o = new_options();
  cbl_stop_reason reason;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_IGNORE_END_OF_TEXT, 1));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1000000));

  /* Before the call, and taken back. */
  CHECK_OK(cbl_session_cancel(session));
  CHECK_STATUS(CBL_CANCELLED, cbl_session_evaluate(session, TOKENS, 3));
  CHECK(cbl_session_position(session) == 0);
  CHECK_OK(cbl_session_cancel(session));
  CHECK_OK(cbl_session_clear_cancel(session));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK_OK(cbl_session_reset(session));

  /* From the callback. */
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, cancel_from_callback, session, &reason));
  CHECK(reason == CBL_STOP_CANCELLED && cbl_session_position(session) == 3);

  /* What comes too late to stop a call does not stop the next one. */
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, cancel_and_stop, session, &reason));
  CHECK(reason == CBL_STOP_CANCELLED);
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  /* Nor does it wait behind a call that does not look: it stops the next one that does. */
  CHECK_OK(cbl_session_cancel(session));
  CHECK_OK(cbl_session_reset(session));
  CHECK_STATUS(CBL_CANCELLED, cbl_session_evaluate(session, TOKENS, 3));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK_OK(cbl_session_reset(session));

  if (cbl_has_text()) cancelling_texts(session, o);

  /* From another thread: start over whenever the context is full, until it strikes. */
  pthread_t thread;
  pthread_create(&thread, NULL, cancel_soon, session);
  do {
    CHECK_OK(cbl_session_reset(session));
    CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, go_on, NULL, &reason));
  } while (reason != CBL_STOP_CANCELLED);
  pthread_join(thread, NULL);

  /* From a signal handler. */
  signalled = session;
  signal(SIGUSR1, cancel_in_handler);
  CHECK_OK(cbl_session_reset(session));
  raise(SIGUSR1);
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, go_on, NULL, &reason));
  CHECK(reason == CBL_STOP_CANCELLED);

  /* The session goes on as if nothing had been. */
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(hash_logits(session) == evaluate_and_hash(model));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

/* The file is its owner's alone; what else lies beside it stays; what is no regular file is refused. */
static void saving_beside_others(cbl_session *session, const char *file) {
  char beside[600], other[600], line[8];
  struct stat status;
  snprintf(beside, sizeof beside, "%s.tmp", file);
  snprintf(other, sizeof other, "%s-other", file);
  FILE *stream = fopen(other, "w");
  CHECK(stream && fputs("user's", stream) > 0 && !fclose(stream));
  unlink(beside);
  CHECK(!symlink(other, beside));
  for (int i = 0; i < 2; i++) {
    CHECK_OK(cbl_session_save_file(session, file));
    CHECK(!stat(file, &status) && (status.st_mode & 07777) == 0600);
    CHECK(!chmod(file, 0644)); /* the next one is private again */
  }
  CHECK_OK(cbl_session_restore_file(session, file));
  CHECK(!lstat(beside, &status) && S_ISLNK(status.st_mode));
  stream = fopen(other, "r");
  CHECK(stream && fgets(line, sizeof line, stream) && !strcmp(line, "user's") && !fclose(stream));
  CHECK(!unlink(beside) && !unlink(other) && !unlink(file));

  CHECK(!mkfifo(file, 0600));
  const char *refused[2] = {file, "/dev/null"};
  for (int i = 0; i < 2; i++) {
    CHECK_STATUS(CBL_IO, cbl_session_save_file(session, refused[i]));
    CHECK(strstr(cbl_session_error(session), refused[i]));
    CHECK(!stat(refused[i], &status) && !S_ISREG(status.st_mode));
    CHECK_STATUS(CBL_IO, cbl_session_restore_file(session, refused[i]));
    CHECK(strstr(cbl_session_error(session), refused[i]));
  }
  CHECK(!unlink(file));
}

static void saving(int64_t cache) {
  cbl_model *model = open_model(path);
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CACHE, cache));
  cbl_session *session = new_session(model, o);
  uint32_t prompt[40];
  for (uint32_t i = 0; i < 40; i++) prompt[i] = i * 7 % 100;
  CHECK_OK(cbl_session_evaluate(session, prompt, 40));
  CHECK_OK(cbl_session_rewind(session, 36)); /* leaves unused lanes behind */
  CHECK_OK(cbl_session_evaluate(session, prompt + 36, 1));
  uint64_t at_save = hash_logits(session);

  size_t size, again;
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_session_save(session, NULL, 0, &size));
  char *saved = malloc(size + 1), *second = malloc(size);
  CHECK_STATUS(CBL_BUFFER_TOO_SMALL, cbl_session_save(session, saved, size - 1, &again));
  CHECK(again == size);
  CHECK_OK(cbl_session_save(session, saved, size, &again));
  CHECK(again == size);
  collected on = {0}, restored = {0}, forked = {0};
  cbl_session *fork;
  CHECK_OK(cbl_session_fork(session, NULL, &fork));
  CHECK(cbl_session_position(fork) == 37 && hash_logits(fork) == at_save);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 20));
  CHECK_OK(cbl_generate_tokens(session, o, prompt + 37, 3, collect_token, &on, NULL));
  uint64_t at_end = hash_logits(session);

  /* Into a session of another context, chunk and number of threads: it goes on with the same bits. */
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 61));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CHUNK, 5));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_THREADS, 2));
  cbl_session *other = new_session(model, o);
  CHECK_OK(cbl_session_evaluate(other, TOKENS, 3));
  CHECK_OK(cbl_session_restore(other, saved, size));
  CHECK(cbl_session_position(other) == 37 && hash_logits(other) == at_save);
  CHECK_OK(cbl_session_save(other, second, size, &again));
  CHECK(again == size && !memcmp(saved, second, size));
  CHECK_OK(cbl_generate_tokens(other, o, prompt + 37, 3, collect_token, &restored, NULL));
  CHECK(hash_logits(other) == at_end && !memcmp(&on, &restored, sizeof on));

  /* The fork goes on by itself. */
  CHECK_OK(cbl_generate_tokens(fork, o, prompt + 37, 3, collect_token, &forked, NULL));
  CHECK(hash_logits(fork) == at_end && !memcmp(&on, &forked, sizeof on));
  CHECK_OK(cbl_session_free(fork));
  fork = (cbl_session *)prompt;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 36));
  CHECK_OK(cbl_session_restore(session, saved, size));
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_session_fork(session, o, &fork));
  CHECK(!fork);
  cbl_session *small = new_session(model, o);
  CHECK_STATUS(CBL_CONTEXT_FULL, cbl_session_restore(small, saved, size));
  CHECK_OK(cbl_session_free(small));

  /* What is damaged or foreign is refused, and nothing changes. */
  CHECK_STATUS(CBL_BAD_SAVED, cbl_session_restore(session, saved, size - 1));
  CHECK_STATUS(CBL_BAD_SAVED, cbl_session_restore(session, saved, 0));
  CHECK_STATUS(CBL_BAD_SAVED, cbl_session_restore(session, saved, size + 1));
  for (size_t at = 0; at < size; at += at < 300 ? 1 : 509) {
    saved[at] ^= 0x10;
    cbl_status status = cbl_session_restore(session, saved, size);
    CHECK(status == CBL_BAD_SAVED || status == CBL_CONTEXT_FULL);
    saved[at] ^= 0x10;
  }
  CHECK(hash_logits(session) == at_save);
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CACHE, !cache));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  cbl_session *unlike = new_session(model, o);
  CHECK_STATUS(CBL_BAD_SAVED, cbl_session_restore(unlike, saved, size));
  CHECK(strstr(cbl_session_error(unlike), "type"));
  CHECK_STATUS(CBL_BAD_SAVED, cbl_session_fork(session, o, &fork));
  CHECK_OK(cbl_session_free(unlike));

  /* Files. */
  char file[512];
  snprintf(file, sizeof file, "%s/saved-%d", directory, (int)cache);
  CHECK_OK(cbl_session_save_file(session, file));
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_session_restore_file(session, file));
  CHECK(hash_logits(session) == at_save);
  CHECK(!truncate(file, (off_t)size / 2));
  CHECK_STATUS(CBL_BAD_SAVED, cbl_session_restore_file(session, file));
  CHECK(strstr(cbl_session_error(session), file));
  CHECK(hash_logits(session) == at_save);
  CHECK(!unlink(file));
  CHECK_STATUS(CBL_IO, cbl_session_restore_file(session, file));
  CHECK(strstr(cbl_session_error(session), file));
  CHECK_STATUS(CBL_IO, cbl_session_restore_file(session, directory));
  CHECK_STATUS(CBL_IO, cbl_session_save_file(session, "/nowhere/at/all"));
  CHECK(strstr(cbl_session_error(session), "/nowhere/at"));
  CHECK_STATUS(CBL_IO, cbl_session_save_file(session, directory));
  CHECK(strstr(cbl_session_error(session), directory));
  saving_beside_others(session, file);

  /* Nothing but the beginning. */
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_session_save(session, saved, size, &again));
  CHECK(again < 100);
  CHECK_OK(cbl_session_restore(other, saved, again));
  CHECK(cbl_session_position(other) == 0);
  free(saved), free(second);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(other));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

static void arena(void) {
  char message[256];
  cbl_model *model = open_model(path);
  cbl_options *o = new_options();
  cbl_session *session;
  cbl_memory_plan plan;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  CHECK_OK(cbl_model_plan(model, o, &plan, sizeof plan, NULL, 0));
  CHECK(plan.cache_bytes && plan.total_bytes == plan.cache_bytes + plan.scratch_bytes);
  size_t size = plan.total_bytes;
  char *memory = aligned_alloc(64, size + 64);
  memset(memory, 'x', size + 64);
  CHECK_OK(cbl_options_set_arena(o, memory, size - 1));
  CHECK_STATUS(CBL_NO_MEMORY, cbl_session_new(model, o, &session, message, sizeof message));
  CHECK(!session && strstr(message, "arena"));
  CHECK_OK(cbl_options_set_arena(o, memory, size));
  session = new_session(model, o);
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(hash_logits(session) == evaluate_and_hash(model));
  const float *logits;
  size_t count;
  CHECK_OK(cbl_session_logits(session, &logits, &count));
  CHECK((const char *)logits > memory && (const char *)logits < memory + size);

  /* Another session in the same memory, or in a part of it, would overwrite this one. */
  cbl_session *second;
  uint64_t hash = hash_logits(session);
  for (size_t offset = 0; offset <= 64; offset += 64) {
    CHECK_OK(cbl_options_set_arena(o, memory + offset, size));
    CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_session_new(model, o, &second, message, sizeof message));
    CHECK(!second && strstr(message, "belongs to another session"));
    CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_session_fork(session, o, &second));
    CHECK(!second && strstr(cbl_session_error(session), "belongs to another session"));
  }
  CHECK(hash_logits(session) == hash);
  for (size_t i = 0; i < 64; i++) CHECK(memory[size + i] == 'x');
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_session_new(model, o, &second, message, sizeof message));
  CHECK_OK(cbl_session_free(second));
  CHECK_OK(cbl_options_set_arena(o, NULL, 0));
  CHECK_OK(cbl_session_free(new_session(model, o)));
  free(memory);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_model_free(model));
}

/* Pools: backwards; one that leaves a task out. */
static void backwards(void *user, size_t count, cbl_task task, void *context) {
  ++*(size_t *)user;
  while (count--) task(context, count);
}

static void forgetful(void *user, size_t count, cbl_task task, void *context) {
  (void)user;
  for (size_t i = 1; i < count; i++) task(context, i);
}

static void pool(void) {
  cbl_model *model = open_model(path);
  cbl_options *o = new_options();
  size_t calls = 0;
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_options_set_pool(o, backwards, 0, &calls));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_options_set_pool(o, backwards, 65, &calls));
  CHECK_OK(cbl_options_set_pool(o, backwards, 3, &calls));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  cbl_session *session = new_session(model, o);
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(calls > 0 && hash_logits(session) == evaluate_and_hash(model));
  cbl_session_stats stats;
  CHECK_OK(cbl_session_get_stats(session, &stats, sizeof stats));
  CHECK(stats.threads == 3);
  CHECK_OK(cbl_session_free(session));

  CHECK_OK(cbl_options_set_pool(o, forgetful, 3, NULL));
  session = new_session(model, o);
  CHECK_STATUS(CBL_PANIC, cbl_session_evaluate(session, TOKENS, 3));
  CHECK(strstr(cbl_session_error(session), "host pool ran 2 of 3 tasks"));
  CHECK_STATUS(CBL_PANIC, cbl_session_reset(session));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_model_free(model));
}

static void count_messages(void *user, int32_t level, const char *message) {
  CHECK(level >= CBL_LOG_ERROR && level <= CBL_LOG_INFO && *message);
  ++*(int *)user;
}

static void logging(void) {
  int messages = 0;
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_log(o, count_messages, &messages));
  cbl_model *model;
  CHECK_OK(cbl_model_open(path, o, &model, NULL, 0));
  CHECK(messages == 1);
  cbl_session *session = new_session(model, o);
  CHECK(messages >= 2);
  int before = messages;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_MAX_TOKENS, 1));
  CHECK_OK(cbl_generate_tokens(session, o, TOKENS, 3, go_on, NULL, NULL));
  CHECK(messages == before + 1);
  CHECK_OK(cbl_options_free(o));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

/* A mapped file that is replaced in place is noticed. */
static void changed_file(void) {
  char copy[512], command[2048];
  snprintf(copy, sizeof copy, "%s/changed.cbl", directory);
  snprintf(command, sizeof command, "cp '%s' '%s'", path, copy);
  CHECK(!system(command));
  cbl_model *model = open_model(copy);
  cbl_session *session = new_session(model, NULL);
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  int fd = open(copy, O_WRONLY | O_APPEND);
  CHECK(fd >= 0 && write(fd, "x", 1) == 1);
  close(fd);
  CHECK_STATUS(CBL_MODEL_CHANGED, cbl_session_evaluate(session, TOKENS, 3));
  CHECK(strstr(cbl_session_error(session), "changed.cbl"));
  CHECK_STATUS(CBL_MODEL_CHANGED, cbl_model_verify(model, NULL, 0));
  CHECK(!unlink(copy));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  path = arguments[1], directory = arguments[2];
  versions();
  options_are_checked();
  options_are_checked_against_the_model();
  bad_files();
  all_ways_to_open();
  structures_grow();
  handles_are_told_apart();
  evaluation();
  evaluation_of_each();
  generation();
  text();
  re_entry();
  model_freed_before_its_session();
  two_threads();
  cancelling();
  saving(CBL_CACHE_F16);
  saving(CBL_CACHE_INT8);
  arena();
  pool();
  logging();
  changed_file();
  return 0;
}
