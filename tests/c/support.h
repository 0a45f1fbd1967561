/* What the test programs share: checks that say where they failed, and things to test on. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cerebellum.h"

#define CHECK(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1); \
    } \
  } while (0)

#define CHECK_STATUS(expected, call) check_status(__FILE__, __LINE__, #call, expected, call)
#define CHECK_OK(call) CHECK_STATUS(CBL_OK, call)

static inline void check_status(const char *file, int line, const char *call, cbl_status expected,
                                cbl_status found) {
  if (found != expected) {
    fprintf(stderr, "%s:%d: %s is %d (%s), expected %d (%s)\n", file, line, call, (int)found,
            cbl_status_text(found), (int)expected, cbl_status_text(expected));
    exit(1);
  }
}

/* Three tokens that any vocabulary has. */
static const uint32_t TOKENS[3] = {5, 6, 7};

static inline cbl_model *open_model(const char *path) {
  char message[256];
  cbl_model *model;
  cbl_status status = cbl_model_open(path, NULL, &model, message, sizeof message);
  if (status != CBL_OK) {
    fprintf(stderr, "%s: %s\n", path, message);
    exit(1);
  }
  return model;
}

static inline cbl_options *new_options(void) {
  cbl_options *options;
  CHECK_OK(cbl_options_new(&options));
  return options;
}

/* A session of 64 positions, or of options. */
static inline cbl_session *new_session(const cbl_model *model, cbl_options *options) {
  char message[256];
  cbl_session *session;
  cbl_options *own = options ? NULL : new_options();
  if (own) CHECK_OK(cbl_options_set_int(own, CBL_OPTION_CONTEXT, 64));
  cbl_status status =
      cbl_session_new(model, options ? options : own, &session, message, sizeof message);
  if (status != CBL_OK) {
    fprintf(stderr, "cbl_session_new: %s\n", message);
    exit(1);
  }
  CHECK_OK(cbl_options_free(own));
  return session;
}

/* Collects text or tokens; stops after `limit` pieces unless it is 0. */
typedef struct {
  char text[4096];
  size_t length;
  uint32_t tokens[256];
  size_t count;
  size_t pieces, limit;
} collected;

static inline bool collect_text(void *user, const char *text, size_t length) {
  collected *to = (collected *)user;
  CHECK(to->length + length < sizeof to->text);
  memcpy(to->text + to->length, text, length);
  to->length += length;
  to->text[to->length] = 0;
  return ++to->pieces != to->limit;
}

static inline bool collect_token(void *user, uint32_t token) {
  collected *to = (collected *)user;
  CHECK(to->count < 256);
  to->tokens[to->count++] = token;
  return ++to->pieces != to->limit;
}

/* FNV-1a of the last token's logits, for comparing bits. */
static inline uint64_t hash_logits(cbl_session *session) {
  const float *logits;
  size_t count;
  CHECK_OK(cbl_session_logits(session, &logits, &count));
  uint64_t hash = 0xcbf29ce484222325u;
  const unsigned char *bytes = (const unsigned char *)logits;
  for (size_t i = 0; i < count * sizeof *logits; i++) {
    hash = (hash ^ bytes[i]) * 0x100000001b3u;
  }
  return hash;
}

#endif
