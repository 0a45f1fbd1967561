/* A conversation with a model: reads a line, streams the answer, and again. Ctrl-C stops an answer, at
 * the prompt it ends the program.
 *
 *     make && ./chat MODEL.cbl
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cerebellum.h>

static cbl_session *session;
static volatile sig_atomic_t answering;

/* cbl_session_cancel() may be called in a signal handler. */
static void on_interrupt(int signal) {
  (void)signal;
  if (!answering) _Exit(130);
  cbl_session_cancel(session);
}

static bool on_text(void *user, const char *text, size_t length) {
  FILE *out = user;
  return fwrite(text, 1, length, out) == length && fflush(out) == 0;
}

static int fail(const char *what, cbl_status status, const char *message) {
  fprintf(stderr, "%s: %s (%s)\n", what, message, cbl_status_text(status));
  return 1;
}

/* The memory plan, before anything is allocated. */
static int tell_plan(const cbl_model *model, const cbl_options *options) {
  char message[256];
  cbl_memory_plan plan;
  cbl_status status =
      cbl_model_plan(model, options, &plan, sizeof plan, message, sizeof message);
  if (status != CBL_OK) return fail("plan", status, message);
  fprintf(stderr, "%.1f MiB weights, %.1f MiB private memory\n",
          (double)plan.weights_bytes / (1 << 20), (double)plan.total_bytes / (1 << 20));
  return 0;
}

/* The answer's last token is chosen but not evaluated yet: the next line comes behind it. A failure, when
 * the context is full, is found out by the next answer. */
static void remember_last_token(void) {
  cbl_session_stats stats;
  if (cbl_session_get_stats(session, &stats, sizeof stats) == CBL_OK && stats.pending_token >= 0) {
    uint32_t token = (uint32_t)stats.pending_token;
    (void)cbl_session_evaluate(session, &token, 1);
  }
}

/* Starts over if the rest of the context is too small for another exchange. */
static cbl_status answer(const cbl_options *options, const char *line) {
  cbl_stop_reason reason;
  answering = 1;
  cbl_status status =
      cbl_generate(session, options, line, strlen(line), on_text, stdout, &reason);
  if (status == CBL_CONTEXT_FULL && cbl_session_position(session) > 0) {
    fprintf(stderr, "[the context is full: starting over]\n");
    cbl_session_reset(session);
    status = cbl_generate(session, options, line, strlen(line), on_text, stdout, &reason);
  }
  answering = 0;
  /* Ctrl-C after the last token must not stop the next answer. */
  cbl_session_clear_cancel(session);
  if (status == CBL_OK) remember_last_token();
  if (status == CBL_OK && reason == CBL_STOP_CANCELLED) fprintf(stderr, " [stopped]");
  return status;
}

static int talk(const cbl_options *options) {
  char line[4096];
  while (fputs("\n> ", stderr), fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    cbl_status status = answer(options, line);
    if (status != CBL_OK) fail("generate", status, cbl_session_error(session));
  }
  cbl_session_stats stats;
  if (cbl_session_get_stats(session, &stats, sizeof stats) == CBL_OK) {
    fprintf(stderr, "\n%llu tokens evaluated in %.2f s on %s\n",
            (unsigned long long)stats.evaluated_tokens, stats.evaluation_seconds, stats.isa);
  }
  return 0;
}

static cbl_status set_options(cbl_options *options) {
  cbl_status status = cbl_options_set_int(options, CBL_OPTION_THREADS, 2);
  if (!status) status = cbl_options_set_int(options, CBL_OPTION_MAX_TOKENS, 60);
  if (!status) status = cbl_options_set_float(options, CBL_OPTION_TEMPERATURE, 0.7);
  if (!status) status = cbl_options_set_float(options, CBL_OPTION_TOP_P, 0.95);
  if (!status) status = cbl_options_add_stop(options, "\n\n", 2);
  return status;
}

int main(int count, char **arguments) {
  if (count != 2) {
    fprintf(stderr, "usage: %s MODEL.cbl\n", arguments[0]);
    return 2;
  }
  if (cbl_abi_version() != CBL_ABI_VERSION) {
    fprintf(stderr, "the library (%s) does not fit this program\n", cbl_version_string());
    return 1;
  }
  char message[256];
  cbl_options *options = NULL;
  cbl_model *model = NULL;
  int result = 1;

  cbl_status status = cbl_options_new(&options);
  if (!status) status = set_options(options);
  if (status != CBL_OK) {
    fail("options", status, cbl_options_error(options));
    goto done;
  }
  status = cbl_model_open(arguments[1], options, &model, message, sizeof message);
  if (status != CBL_OK) {
    fail("open", status, message);
    goto done;
  }
  if (tell_plan(model, options) != 0) goto done;
  status = cbl_session_new(model, options, &session, message, sizeof message);
  if (status != CBL_OK) {
    fail("session", status, message);
    goto done;
  }
  signal(SIGINT, on_interrupt);
  result = talk(options);
  signal(SIGINT, SIG_DFL);

done: /* NULL is fine. */
  cbl_session_free(session);
  cbl_model_free(model);
  cbl_options_free(options);
  return result;
}
