/* Every function is misused, pointer by pointer, and panics once (tests/c_interface/calls.rs).
 *
 * Built with -DPANICS_ARMED against a library with the feature capi-test-panics, every function panics
 * once; otherwise those lines do nothing. */

/* A function that frees a handle has freed it if it says so. */
#define FORGET_FREED(status, call) \
  do { \
    if ((status) == CBL_OK && !strncmp(#call, "cbl_options_free(", 17)) f.spare_options = NULL; \
    if ((status) == CBL_OK && !strncmp(#call, "cbl_model_free(", 15)) f.spare_model = NULL; \
    if ((status) == CBL_OK && !strncmp(#call, "cbl_session_free(", 17)) f.spare_session = NULL; \
    if ((status) == CBL_OK && !strncmp(#call, "cbl_classifier_free(", 20)) f.spare_classifier = NULL; \
    if ((status) == CBL_OK && !strncmp(#call, "cbl_batch_free(", 15)) f.spare_batch = NULL; \
    if ((status) == CBL_OK && !strncmp(#call, "cbl_template_free(", 18)) f.spare_template = NULL; \
  } while (0)

/* Places for results are defined whatever comes of the call. */
enum { UNDEFINED = 0xA5 };
#define UNDEFINE(place) memset(place, UNDEFINED, sizeof *(place))
#define CHECK_DEFINED(place) check_defined(__FILE__, __LINE__, #place, place, sizeof *(place))

static void check_defined(const char *file, int line, const char *name, const void *place, size_t size) {
  const unsigned char *bytes = place;
  for (size_t i = 0; i < size; i++) {
    if (bytes[i] != UNDEFINED) return;
  }
  fprintf(stderr, "%s:%d: *%s is undefined\n", file, line, name);
  exit(1);
}

#define CASE(expected, call, undefine, check_defined) \
  do { \
    open_fixture(); \
    undefine; \
    cbl_status status_ = call; \
    check_status(__FILE__, __LINE__, #call, expected, status_); \
    check_defined; \
    FORGET_FREED(status_, call); \
    close_fixture(); \
  } while (0)

#define VALUE(call) \
  do { \
    open_fixture(); \
    (void)call; \
    close_fixture(); \
  } while (0)

#ifdef PANICS_ARMED
void cbl_test_arm_panic(bool armed);

#define PANICS(prepare, call) \
  do { \
    open_fixture(); \
    prepare; \
    cbl_test_arm_panic(true); \
    cbl_status status_ = call; \
    cbl_test_arm_panic(false); \
    check_status(__FILE__, __LINE__, #call, CBL_PANIC, status_); \
    if (strstr(#call, "message")) CHECK(strstr(message, "a panic for a test")); \
    close_fixture(); \
  } while (0)

#define PANICS_QUIETLY(call) \
  do { \
    open_fixture(); \
    cbl_test_arm_panic(true); \
    (void)call; \
    cbl_test_arm_panic(false); \
    close_fixture(); \
  } while (0)
/* A handle that was poisoned says so and can be freed as any other; the others go on. */
static void poisoned_handles(void) {
  const float *row;
  open_fixture();
  cbl_session *other = new_session(f.model, f.options);
  cbl_test_arm_panic(true);
  CHECK_STATUS(CBL_PANIC, cbl_session_reset(f.session));
  CHECK_STATUS(CBL_PANIC, cbl_options_clear_stops(f.options));
  cbl_test_arm_panic(false);
  CHECK(strstr(cbl_session_error(f.session), "a panic for a test"));
  CHECK_STATUS(CBL_PANIC, cbl_session_logits(f.session, &row, &count));
  CHECK(strstr(cbl_session_error(f.session), "free the handle"));
  CHECK_STATUS(CBL_PANIC, cbl_options_clear_stops(f.options));
  CHECK_STATUS(CBL_PANIC, cbl_session_new(f.model, f.options, &f.spare_session, NULL, 0));
  CHECK_OK(cbl_session_evaluate(other, TOKENS, 3));
  CHECK_OK(cbl_session_free(f.session));
  f.session = new_session(f.model, NULL);
  cbl_test_arm_panic(true);
  CHECK_STATUS(CBL_PANIC, cbl_model_get_info(f.model, &info, sizeof info));
  cbl_test_arm_panic(false);
  CHECK_STATUS(CBL_PANIC, cbl_model_get_info(f.model, &info, sizeof info));
  CHECK_OK(cbl_session_evaluate(other, TOKENS, 3));
  cbl_test_arm_panic(true);
  CHECK_STATUS(CBL_PANIC, cbl_batch_rewind(f.batch, 0, 0));
  cbl_test_arm_panic(false);
  CHECK_STATUS(CBL_PANIC, cbl_batch_rewind(f.batch, 0, 0));
  CHECK(strstr(cbl_batch_error(f.batch), "free the handle"));
  CHECK_OK(cbl_session_free(other));
  close_fixture();
}
#else
static void poisoned_handles(void) {}
#define PANICS(prepare, call) (void)0
#define PANICS_QUIETLY(call) (void)0
#endif
