/* What the header promises of opening: parts of files, progress, pages that stay in memory, copies of weights.
 * Usage: opening MODEL DIRECTORY */
#include "support.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path;
static char package[512], message[256];
static char *bytes;
static size_t size;
static uint64_t hash;

static void read_model(void) {
  struct stat status;
  int fd = open(path, O_RDONLY);
  CHECK(fd >= 0 && !fstat(fd, &status));
  size = (size_t)status.st_size;
  bytes = malloc(size);
  CHECK(bytes && pread(fd, bytes, size, 0) == (ssize_t)size);
  close(fd);
}

/* A file with the model at `offset` and something after it; returns a descriptor that is at 7. */
static int pack(off_t offset) {
  int fd = open(package, O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && pwrite(fd, bytes, size, offset) == (ssize_t)size);
  CHECK(pwrite(fd, "after", 5, offset + (off_t)size) == 5 && lseek(fd, 7, SEEK_SET) == 7);
  return fd;
}

static cbl_options *reading(void) {
  cbl_options *o = new_options();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_ACCESS, CBL_ACCESS_READ));
  return o;
}

static uint64_t hash_of(const cbl_model *model) {
  cbl_session *session = new_session(model, NULL);
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  uint64_t found = hash_logits(session);
  CHECK_OK(cbl_session_free(session));
  return found;
}

static cbl_status open_part(int fd, uint64_t offset, uint64_t length, cbl_options *options,
                            cbl_model **model) {
  *model = (cbl_model *)bytes;
  cbl_status status =
      cbl_model_open_fd_range(fd, offset, length, options, model, message, sizeof message);
  CHECK((status == CBL_OK) == (*model != NULL) && (status == CBL_OK) == !*message);
  CHECK(fd < 0 || lseek(fd, 0, SEEK_CUR) == 7);
  return status;
}

static void parts(void) {
  /* Aligned to pages, to cache lines only, to nothing. */
  static const off_t OFFSETS[] = {0, 64, 4096, 4096 + 64, 16384, 1, 32, 4095};
  cbl_options *read = reading();
  for (size_t i = 0; i < sizeof OFFSETS / sizeof *OFFSETS; i++) {
    off_t offset = OFFSETS[i];
    cbl_model *mapped, *owned;
    int fd = pack(offset);
    cbl_model_info info;
    if (offset % 64 == 0) {
      CHECK_OK(open_part(fd, (uint64_t)offset, size, NULL, &mapped));
      CHECK_OK(cbl_model_get_info(mapped, &info, sizeof info));
      CHECK(info.is_mapped && info.file_bytes == size && hash_of(mapped) == hash);
      CHECK_OK(cbl_model_verify(mapped, message, sizeof message));
      CHECK_OK(cbl_model_free(mapped));
    } else {
      CHECK_STATUS(CBL_BAD_ARGUMENT, open_part(fd, (uint64_t)offset, size, NULL, &mapped));
      CHECK(strstr(message, "multiple of 64") && strstr(message, "reading"));
    }
    CHECK_OK(open_part(fd, (uint64_t)offset, size, read, &owned));
    CHECK_OK(cbl_model_get_info(owned, &info, sizeof info));
    CHECK(!info.is_mapped && hash_of(owned) == hash);
    CHECK_OK(cbl_model_free(owned));
    close(fd);
  }
  /* What is not there. */
  cbl_model *model;
  int fd = pack(4096);
  cbl_options *both[] = {NULL, read};
  for (int i = 0; i < 2; i++) {
    CHECK_STATUS(CBL_BAD_ARGUMENT, open_part(fd, 4096, size + 6, both[i], &model));
    CHECK(strstr(message, "check offset and length"));
    CHECK_STATUS(CBL_BAD_ARGUMENT, open_part(fd, UINT64_MAX, UINT64_MAX, both[i], &model));
    CHECK_STATUS(CBL_BAD_ARGUMENT, open_part(fd, 64, UINT64_MAX - 64, both[i], &model));
    CHECK_STATUS(CBL_BAD_MODEL, open_part(fd, 0, size, both[i], &model));
    CHECK_STATUS(CBL_BAD_MODEL, open_part(fd, 4096, size - 1, both[i], &model));
    CHECK_STATUS(CBL_BAD_MODEL, open_part(fd, 4096, size + 1, both[i], &model));
    CHECK_STATUS(CBL_BAD_MODEL, open_part(fd, 4096, 0, both[i], &model));
    CHECK_STATUS(CBL_BAD_ARGUMENT, open_part(-1, 0, size, both[i], &model));
  }
  /* The descriptor may be closed, the file removed; if it is changed, that is found out. */
  CHECK_OK(open_part(fd, 4096, size, NULL, &model));
  CHECK(!unlink(package));
  CHECK(hash_of(model) == hash);
  CHECK(pwrite(fd, "!", 1, 4096 + (off_t)size + 5) == 1);
  close(fd);
  CHECK_STATUS(CBL_MODEL_CHANGED, cbl_model_verify(model, message, sizeof message));
  CHECK_STATUS(CBL_MODEL_CHANGED, cbl_model_lock_memory(model, message, sizeof message));
  CHECK_OK(cbl_model_free(model));
  CHECK_OK(cbl_options_free(read));
}

typedef struct {
  int calls[3];
  uint64_t done, total;
  int stage, give_up_at, all;
} told;

static bool on_progress(void *user, int32_t stage, uint64_t done, uint64_t total) {
  told *to = user;
  CHECK(stage == CBL_STAGE_READ || stage == CBL_STAGE_VERIFY);
  CHECK(stage == to->stage ? done >= to->done && total == to->total : done == 0);
  CHECK(stage >= to->stage && done <= total && total <= size);
  CHECK(to->stage == 0 || stage == to->stage || to->done == to->total);
  to->stage = stage, to->done = done, to->total = total;
  to->calls[stage]++;
  return ++to->all != to->give_up_at;
}

static void progress(void) {
  cbl_options *o = reading();
  told to = {0};
  cbl_model *model;
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_VERIFY, 1));
  CHECK_OK(cbl_options_set_progress(o, on_progress, &to));
  CHECK_OK(cbl_model_open(path, o, &model, message, sizeof message));
  CHECK(hash_of(model) == hash);
  CHECK_OK(cbl_model_free(model));
  CHECK(to.stage == CBL_STAGE_VERIFY && to.done == to.total);
  CHECK(to.calls[CBL_STAGE_READ] >= 2 && to.calls[CBL_STAGE_VERIFY] >= 2);
  /* Giving up, at every time there is. */
  for (int at = 1; at <= to.all; at++) {
    told stopped = {.give_up_at = at};
    CHECK_OK(cbl_options_set_progress(o, on_progress, &stopped));
    CHECK_STATUS(CBL_CANCELLED, cbl_model_open(path, o, &model, message, sizeof message));
    CHECK(!model && strstr(message, "progress") && stopped.all == at);
  }
  /* Mapped and borrowed files are only verified; a map alone tells of nothing. */
  told mapped = {0};
  CHECK_OK(cbl_options_set_progress(o, on_progress, &mapped));
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_ACCESS, CBL_ACCESS_MAP));
  CHECK_OK(cbl_model_open(path, o, &model, message, sizeof message));
  CHECK_OK(cbl_model_free(model));
  CHECK(mapped.calls[CBL_STAGE_VERIFY] >= 2 && !mapped.calls[CBL_STAGE_READ]);
  mapped = (told){0};
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_VERIFY, 0));
  CHECK_OK(cbl_model_open(path, o, &model, message, sizeof message));
  CHECK_OK(cbl_model_free(model));
  CHECK(mapped.all == 0);
  CHECK_OK(cbl_options_set_progress(o, NULL, NULL));
  CHECK_OK(cbl_options_free(o));
}

/* Before anything but its header is read, and in no time, a file is refused. */
static void sparse(void) {
  cbl_options *o = reading();
  cbl_model *model;
  told to = {0};
  CHECK_OK(cbl_options_set_progress(o, on_progress, &to));
  int fd = open(package, O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && !ftruncate(fd, (off_t)1 << 40));
  CHECK_STATUS(CBL_BAD_MODEL, cbl_model_open(package, o, &model, message, sizeof message));
  /* With a header that is one. */
  CHECK(pwrite(fd, bytes, 1 << 16, 0) == 1 << 16);
  CHECK(pwrite(fd, bytes + size - 4, 4, ((off_t)1 << 40) - 4) == 4);
  CHECK_STATUS(CBL_BAD_MODEL, cbl_model_open(package, o, &model, message, sizeof message));
  CHECK(strstr(message, "1099511627776") && to.all == 0);
  close(fd);
  CHECK(!unlink(package));
  CHECK_OK(cbl_options_free(o));
}

/* Kilobytes that this process has locked. */
static long locked(void) {
  char line[256];
  long kilobytes = -1;
  FILE *status = fopen("/proc/self/status", "r");
  CHECK(status);
  while (fgets(line, sizeof line, status)) sscanf(line, "VmLck: %ld", &kilobytes);
  fclose(status);
  return kilobytes;
}

/* All that is locked comes back, whatever holds the model. */
static void locking(void) {
  cbl_options *read = reading(), *o = new_options();
  cbl_model *models[3];
  cbl_session *session;
  cbl_batch *batch;
  cbl_memory_plan plan;
  long before = locked();
  CHECK_OK(cbl_options_set_int(o, CBL_OPTION_CONTEXT, 64));
  CHECK_OK(cbl_model_open(path, NULL, &models[0], message, sizeof message));
  CHECK_OK(cbl_model_open(path, read, &models[1], message, sizeof message));
  void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
  memcpy(memory, bytes, size);
  CHECK_OK(cbl_model_open_memory(memory, size, NULL, &models[2], message, sizeof message));
  for (int i = 0; i < 3; i++) {
    long here = locked();
    CHECK_OK(cbl_model_lock_memory(models[i], message, sizeof message));
    CHECK(locked() >= here + (long)(size >> 10) - 8);
    here = locked();
    CHECK_OK(cbl_model_lock_memory(models[i], message, sizeof message));
    CHECK(locked() == here && hash_of(models[i]) == hash);
  }
  session = new_session(models[0], o);
  CHECK_OK(cbl_model_plan(models[0], o, &plan, sizeof plan, NULL, 0));
  long here = locked();
  CHECK_OK(cbl_session_lock_memory(session));
  CHECK_OK(cbl_session_lock_memory(session));
  CHECK(locked() >= here + (long)(plan.total_bytes >> 10));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(hash_logits(session) == hash);
  CHECK_OK(cbl_batch_new(models[0], o, 2, &batch, message, sizeof message));
  here = locked();
  CHECK_OK(cbl_batch_lock_memory(batch));
  CHECK(locked() > here);
  CHECK_OK(cbl_batch_free(batch));
  CHECK_OK(cbl_session_free(session));
  for (int i = 0; i < 3; i++) CHECK_OK(cbl_model_free(models[i]));
  free(memory);
  /* A page at each edge may stay. */
  CHECK(locked() <= before + 10 * 4);
  CHECK_OK(cbl_options_free(read));
  CHECK_OK(cbl_options_free(o));
}

/* In a process that may lock less than the model. */
static void refused_locks(void) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child > 0) {
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return;
  }
  cbl_model *model = open_model(path);
  cbl_session *session = new_session(model, NULL);
  const struct rlimit limit = {8192, 8192};
  CHECK(!setrlimit(RLIMIT_MEMLOCK, &limit));
  if (geteuid() == 0) CHECK(!setuid(65534)); /* Root may lock what it likes. */
  CHECK_STATUS(CBL_NO_MEMORY, cbl_model_lock_memory(model, message, sizeof message));
  char number[32];
  snprintf(number, sizeof number, "%zu bytes", size);
  CHECK(strstr(message, number) && strstr(message, "8192") && strstr(message, "RLIMIT_MEMLOCK"));
  CHECK_STATUS(CBL_NO_MEMORY, cbl_session_lock_memory(session));
  CHECK(strstr(cbl_session_error(session), "RLIMIT_MEMLOCK"));
  /* They go on without. */
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(hash_logits(session) == hash);
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_free(model));
  _exit(0);
}

/* Weights in other memory: the same bits, whatever becomes of those in their place. */
static void copies(void) {
  size_t room = (size + 63) / 64 * 64, saved = 7;
  unsigned char *flash = aligned_alloc(64, room), *fast = aligned_alloc(64, room);
  unsigned char *sound = aligned_alloc(64, room);
  uint64_t header = 0;
  cbl_model *model, *other;
  memcpy(flash, bytes, size);
  memcpy(sound, bytes, size);
  memcpy(&header, bytes, sizeof header);
  CHECK_OK(cbl_model_open_memory(flash, size, NULL, &model, message, sizeof message));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_copy_weights(model, NULL, room, &saved, message, sizeof message));
  CHECK(saved == 0 && strstr(message, "NULL"));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_copy_weights(model, fast, room, NULL, message, sizeof message));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_model_copy_weights(model, fast + 4, room - 64, &saved, message, sizeof message));
  CHECK(saved == 0 && strstr(message, "4 bytes past a 64-byte boundary"));
  CHECK_STATUS(CBL_BAD_OPTION, cbl_model_copy_weights(model, fast, 3, &saved, message, sizeof message));
  CHECK(saved == 0 && strstr(message, "no tensor fits"));
  CHECK(hash_of(model) == hash);
  CHECK_OK(cbl_model_copy_weights(model, fast, room, &saved, message, sizeof message));
  CHECK(saved > size / 2 && saved <= room && !*message);
  memset(flash + 8 + header, 0x5a, size - 8 - (size_t)header);
  CHECK(hash_of(model) == hash);
  /* Once for a model, and for one model. */
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_copy_weights(model, fast, room, &saved, message, sizeof message));
  CHECK(saved == 0 && strstr(message, "belongs to another session or a model"));
  CHECK_OK(cbl_model_open_memory(sound, size, NULL, &other, message, sizeof message));
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_copy_weights(other, fast, room, &saved, message, sizeof message));
  /* A session keeps the copy. */
  cbl_session *session = new_session(model, NULL);
  CHECK_OK(cbl_model_free(model));
  CHECK_OK(cbl_session_evaluate(session, TOKENS, 3));
  CHECK(hash_logits(session) == hash);
  CHECK_STATUS(CBL_BAD_ARGUMENT, cbl_model_copy_weights(other, fast, room, &saved, message, sizeof message));
  CHECK_OK(cbl_session_free(session));
  CHECK_OK(cbl_model_copy_weights(other, fast, room, &saved, message, sizeof message));
  CHECK(hash_of(other) == hash);
  CHECK_OK(cbl_model_free(other));
  free(flash);
  free(fast);
  free(sound);
}

int main(int count, char **arguments) {
  CHECK(count == 3);
  path = arguments[1];
  snprintf(package, sizeof package, "%s/package", arguments[2]);
  read_model();
  cbl_model *model = open_model(path);
  hash = hash_of(model);
  CHECK_OK(cbl_model_free(model));
  parts();
  progress();
  sparse();
  copies();
#ifndef __SANITIZE_ADDRESS__ /* Its mlock() does nothing. */
  refused_locks();
  struct rlimit limit;
  CHECK(!getrlimit(RLIMIT_MEMLOCK, &limit));
  if (geteuid() == 0 || limit.rlim_cur > 8 * size) locking();
#else
  (void)refused_locks, (void)locking;
#endif
  free(bytes);
  return 0;
}
