/* A conversation in the model's own form: reads a line, streams the answer, and keeps both for the next turn.
 *
 *     make conversation && ./conversation MODEL.cbl ["You are a helpful assistant."]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cerebellum.h>

enum { MOST = 1000 };
static const char *roles[MOST], *contents[MOST];
static size_t messages;
static char answer[16384];

static void say(const char *role, const char *text) {
  char *copy = malloc(strlen(text) + 1);
  if (!copy) exit(1);
  roles[messages] = role, contents[messages++] = strcpy(copy, text);
}

static bool on_text(void *user, const char *text, size_t length) {
  size_t *said = user;
  if (length >= sizeof answer - *said) return false; /* stops */
  memcpy(answer + *said, text, length);
  answer[*said += length] = 0;
  return fwrite(text, 1, length, stdout) == length && fflush(stdout) == 0;
}

int main(int count, char **arguments) {
  char message[256] = "usage: conversation MODEL.cbl [SYSTEM]", line[4096];
  cbl_model *model = NULL;
  cbl_session *session = NULL;
  cbl_chat_result result;

  cbl_status status = count == 2 || count == 3 ? CBL_OK : CBL_BAD_ARGUMENT;
  if (!status) status = cbl_model_open(arguments[1], NULL, &model, message, sizeof message);
  if (!status) status = cbl_session_new(model, NULL, &session, message, sizeof message);
  if (count == 3) say("system", arguments[2]);
  while (!status && messages + 2 <= MOST && fgets(line, sizeof line, stdin)) {
    size_t said = 0;
    line[strcspn(line, "\n")] = answer[0] = 0;
    say("user", line);
    status = cbl_chat_answer(session, NULL, roles, contents, messages, on_text, &said, &result, sizeof result);
    say("assistant", answer);
    if (!status) {
      printf("\n");
      fprintf(stderr, "[%llu tokens read, %llu known from before]\n", (unsigned long long)result.prompt_tokens,
              (unsigned long long)result.reused_tokens);
    }
  }
  if (status) fprintf(stderr, "%s: %s\n", cbl_status_text(status), session ? cbl_session_error(session) : message);
  while (messages) free((char *)contents[--messages]);
  cbl_session_free(session);
  cbl_model_free(model);
  return status != CBL_OK;
}
