/* Every function after the file of a mapped model was changed, with no call running
 * (tests/c_interface/calls.rs): CBL_MODEL_CHANGED from those that say so in the header, work as usual
 * from all others. Each in a process of its own, which a signal would end. */

#include <sys/wait.h>
#include <time.h>

typedef enum { REPLACED_BY_RENAMING, CUT_OFF, OVERWRITTEN, CHANGES } change;
static const char *const NAMES[CHANGES] = {"replaced by renaming", "cut off", "overwritten"};

static char live_path[600], other_path[600];

static void write_file(const char *path, const void *data, size_t size) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size && !close(fd));
}

/* As old as a file mostly is: a clock may tick only every few milliseconds. */
static void make_live(void) {
  write_file(live_path, model_bytes, model_size);
  const struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
  CHECK(!utimensat(AT_FDCWD, live_path, old, 0));
}

static void change_live(change how) {
  static const char JUNK[4096] = "junk";
  if (how == REPLACED_BY_RENAMING) {
    write_file(other_path, JUNK, sizeof JUNK);
    CHECK(!rename(other_path, live_path));
  } else if (how == CUT_OFF) {
    write_file(live_path, JUNK, sizeof JUNK);
  } else {
    int fd = open(live_path, O_WRONLY);
    CHECK(fd >= 0);
    for (size_t at = 0; at < model_size; at += sizeof JUNK) {
      size_t size = model_size - at < sizeof JUNK ? model_size - at : sizeof JUNK;
      CHECK(pwrite(fd, JUNK, size, (off_t)at) == (ssize_t)size);
    }
    CHECK(!close(fd));
  }
}

/* Whatever is opened at the first use is open. */
static void warm_up(void) {
  cbl_session *session = new_session(f.model, f.options);
  if (cbl_has_text()) {
    size_t label;
    cbl_classifier *classifier = new_classifier();
    CHECK_OK(cbl_classify(session, classifier, "a b", 3, &label, NULL, 0));
    CHECK_OK(cbl_classifier_free(classifier));
    CHECK_OK(cbl_session_reset(session));
    CHECK_OK(cbl_generate(session, f.options, "a b", 3, see_text, NULL, NULL));
  }
  CHECK_OK(cbl_session_reset(session));
  CHECK_OK(cbl_generate_from_tokens(session, f.options, TOKENS, 3, see_text, NULL, NULL));
  CHECK_OK(cbl_model_token_bytes(f.model, 5, &bytes, &count));
  CHECK_OK(cbl_session_free(session));
}

static void in_a_child(const char *name, bool lists_it, void (*prepare)(void),
                       cbl_status (*call)(void), bool warm, change how) {
  make_live();
  fixture_path = live_path;
  open_fixture();
  prepare();
  if (warm) warm_up();
  change_live(how);
  cbl_status expected = lists_it && how != REPLACED_BY_RENAMING ? CBL_MODEL_CHANGED : CBL_OK;
  check_status(NAMES[how], warm, name, expected, call());
  close_fixture();
  exit(0);
}

static void survives_a_changed_file(const char *name, bool lists_it, void (*prepare)(void),
                                    cbl_status (*call)(void)) {
  snprintf(live_path, sizeof live_path, "%s.live", saved_path);
  snprintf(other_path, sizeof other_path, "%s.other", saved_path);
  for (int kind = 0; kind < 2 * CHANGES; kind++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) in_a_child(name, lists_it, prepare, call, kind % 2, kind / 2);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (status) {
      const char *warm = kind % 2 ? "warm" : "cold";
      fprintf(stderr, "%s, %s, %s: status %#x\n", name, NAMES[kind / 2], warm, (unsigned)status);
      exit(1);
    }
  }
  CHECK(!unlink(live_path));
}
