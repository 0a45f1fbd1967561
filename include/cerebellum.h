/*
 * cerebellum.h: runs quantized GPT models on small devices from one memory-mapped file.
 *
 * Generated from src/ffi by cbindgen; do not edit.
 *
 * The whole of it, without error handling:
 *
 *     cbl_model *model;
 *     cbl_session *session;
 *     cbl_model_open("model.cbl", NULL, &model, NULL, 0);
 *     cbl_session_new(model, NULL, &session, NULL, 0);
 *     cbl_generate(session, NULL, "Once upon a time", 16, on_text, NULL, NULL);
 *     cbl_session_free(session);
 *     cbl_model_free(model);
 *
 *     bool on_text(void *user, const char *text, size_t length) {
 *       return fwrite(text, 1, length, stdout) == length;
 *     }
 *
 * For most programs that is all: cbl_model_open(), cbl_session_new(), cbl_generate(),
 * cbl_session_reset(), the two ..._free(), cbl_session_error(), and options for length, temperature and
 * stop strings. Then, as needed: "Scores and embeddings", "Classification", "Templates" (translating,
 * summarizing), "Batches" for other tasks; CBL_OPTION_JSON_SCHEMA and its like for texts of a given form;
 * "Generation on demand" for a loop that asks for the next token; cbl_generate_steps() for the
 * probabilities of tokens; cbl_session_evaluate(), cbl_session_logits() and
 * cbl_session_sample() for a loop of your own; "Saving" for prompts that come again; "What a host may
 * bring along" for a log, memory and threads of your own.
 *
 * What holds everywhere, unless a comment says otherwise:
 *
 * - Errors. A function that can fail returns a cbl_status, 0 for success. Places for results (`**model`,
 *   `*count`, `*info`) are set to NULL, 0 or zeros if it fails, also if a handle is bad; that they are NULL
 *   themselves is an error. Buffers and arrays are written on success only. No call aborts, exits, prints,
 *   installs a signal handler or reads the environment; bugs of the library come back as CBL_PANIC.
 * - Threads. "Thread-safe" functions may be called at any time, also on the same handle; the others by
 *   one thread at a time per handle. A `const` handle is one that may be used concurrently. No function
 *   waits for another thread's call: it returns CBL_BUSY.
 * - Memory. Handles are made by ..._new, ..._open and ..._fork, belong to the caller, and go by ..._free,
 *   in any order. Whatever else a function is given, it does not keep; it copies what it needs. The
 *   exceptions say so (log, arena, pool, memory of a model).
 * - Pointers may not be NULL unless the comment says "may be NULL"; NULL is an error, not a crash. Text
 *   is UTF-8 with a length; paths, and the texts in an array of texts, end with a zero byte.
 * - Numbers. Results are the same bits on every processor and for any number of threads, whatever the
 *   caller's floating-point environment is, exceptions that trap included. It is left as it was, with its
 *   status flags, and callbacks run in it.
 * - Structures that receive results are passed with their size, so that old programs and new libraries,
 *   and the other way round, understand each other.
 */
#ifndef CEREBELLUM_H
#define CEREBELLUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ------------------------------------------------------------------------------
 *
 * The interface grows and never breaks within one CBL_ABI_VERSION: functions, status codes, options
 * and fields at the end of structures may be added; nothing is removed, renumbered or moved.
 */

/** The version of this interface, which is also the number in the name of the shared library. */
#define CBL_ABI_VERSION 0

/** The version of the library whose header this is, part by part. */
#define CBL_VERSION_MAJOR 0

/** As above. */
#define CBL_VERSION_MINOR 1

/** As above. */
#define CBL_VERSION_PATCH 0

/** The same as one number, for comparing: 1002003 is version 1.2.3. */
#define CBL_VERSION_NUMBER (((CBL_VERSION_MAJOR * 1000000) + (CBL_VERSION_MINOR * 1000)) + CBL_VERSION_PATCH)

/**
 * The CBL_ABI_VERSION of the library that is loaded. If it differs from the header's, do not go on.
 *
 * Thread-safe.
 */
uint32_t cbl_abi_version(void);

/**
 * The library's version, such as "0.1.0". Static.
 *
 * Thread-safe.
 */
const char *cbl_version_string(void);

/**
 * The CBL_VERSION_NUMBER of the library that is loaded, which may be later than the header's.
 *
 * Thread-safe.
 */
uint32_t cbl_version_number(void);

/**
 * Whether this build can tokenize text. If not, what takes a text for the model returns CBL_UNSUPPORTED:
 * cbl_model_tokenize(), cbl_generate(), cbl_generation_begin(), cbl_batch_generate(), cbl_score(),
 * cbl_embed(), and all that concerns classifiers and templates. What takes token ids works, and so does
 * turning tokens into text.
 *
 * Thread-safe.
 */
bool cbl_has_text(void);

/**
 * Whether this build can constrain texts: CBL_OPTION_CHOICES, CBL_OPTION_REGEX and
 * CBL_OPTION_JSON_SCHEMA. If not, setting them gives CBL_UNSUPPORTED.
 *
 * Thread-safe.
 */
bool cbl_has_constraints(void);

/**
 * The name of the instruction set number `index` that this processor supports, the best one last, or
 * NULL if there are no more. The names are values of CBL_OPTION_ISA. Static.
 *
 * Thread-safe.
 */
const char *cbl_isa_name(size_t index);

/* ---- Status codes -------------------------------------------------------------------------
 *
 * Every function that can fail returns one. A failed call changes nothing unless its comment says
 * otherwise, and leaves every handle usable, except after CBL_PANIC.
 */

/**
 * What came of a call. Numbers are never changed or reused; later versions may add some, so treat an
 * unknown one as a failure.
 */
typedef int32_t cbl_status;
enum {
  /** Done. */
  CBL_OK = 0,
  /** A handle is NULL, of another kind, or (if you are lucky) already freed. */
  CBL_BAD_HANDLE = 1,
  /** A pointer is NULL or misaligned, a size cannot be, there are no tokens. */
  CBL_BAD_ARGUMENT = 2,
  /** An option is unknown, out of its range, or does not fit the model or the processor. */
  CBL_BAD_OPTION = 3,
  /** A text is not valid UTF-8. */
  CBL_INVALID_UTF8 = 4,
  /** The buffer does not hold the result; the size needed was returned. */
  CBL_BUFFER_TOO_SMALL = 5,
  /**
   * Memory is not to be had or may not be locked, or the arena is smaller than the memory plan. Try a
   * smaller context or chunk, or an int8 cache.
   */
  CBL_NO_MEMORY = 6,
  /** The operating system refused to open, map, read or write a file. */
  CBL_IO = 7,
  /** The bytes are not a model file, are damaged, or are of another version. */
  CBL_BAD_MODEL = 8,
  /** The mapped file was changed after it was opened. Open it again. */
  CBL_MODEL_CHANGED = 9,
  /** A token id is not below the size of the vocabulary. */
  CBL_BAD_TOKEN = 10,
  /** The tokens do not fit behind those already evaluated. */
  CBL_CONTEXT_FULL = 11,
  /** A rewind to a position that was not reached yet. */
  CBL_BAD_POSITION = 12,
  /**
   * The last token's logits are not there: nothing was evaluated since the session was made, reset
   * or rewound, or the last evaluation failed.
   */
  CBL_NO_LOGITS = 13,
  /** A logit is not a finite number: the model's weights are damaged or overflow. */
  CBL_NON_FINITE = 14,
  /** The model file holds no tokenizer. */
  CBL_NO_TOKENIZER = 15,
  /** The text cannot be tokenized, the tokenizer in the file is damaged, or a stop string is empty. */
  CBL_BAD_TEXT = 16,
  /** The handle is in use, by another thread or by the call whose callback this is. */
  CBL_BUSY = 17,
  /** cbl_session_cancel() stopped the call, or a cbl_progress_callback did. */
  CBL_CANCELLED = 18,
  /** The system refused to start a thread. */
  CBL_NO_THREADS = 19,
  /** A saved session is damaged, or belongs to another model, cache type or version. */
  CBL_BAD_SAVED = 20,
  /** This build or platform has no such function; see cbl_has_text(). */
  CBL_UNSUPPORTED = 21,
  /**
   * A bug in the library, or a thread pool of the host's that breaks its contract. The handle of
   * the call is good for nothing any more but for being freed; all others are fine.
   */
  CBL_PANIC = 22,
  /**
   * The generation on demand is none of the session's, or was ended: by a call that changes the
   * session, or by a failure.
   */
  CBL_NO_GENERATION = 23,
};

/**
 * What a status means, in a few words of English, for logs. For any number; the text is static.
 *
 * The message of a handle, or of the call, says more: which file, which option, what to do next.
 *
 * Thread-safe.
 */
const char *cbl_status_text(int32_t status);

/* ---- Options ------------------------------------------------------------------------------
 *
 * One set of options serves everything: opening a model, making sessions, generating. Where a function
 * takes options, NULL stands for the defaults, and options that do not concern it are ignored.
 *
 *     cbl_options *options;
 *     cbl_options_new(&options);
 *     cbl_options_set_int(options, CBL_OPTION_THREADS, 4);
 *     cbl_options_set_float(options, CBL_OPTION_TEMPERATURE, 0.8);
 *
 * A value is checked when it is set, as far as it can be without a model. A set of options may be
 * changed or freed as soon as the call that took it has returned.
 */

/** The keys of options. Numbers are never changed or reused. */
typedef int32_t cbl_option;
enum {
  /** int. Opening: how a file is opened, a cbl_access. CBL_ACCESS_MAP by default. */
  CBL_OPTION_ACCESS = 1,
  /**
   * int, 0 or 1. Opening: read the whole file and check every checksum. 0 by default, when only the
   * header is checked; no content of a file can do more harm than wrong text either way.
   */
  CBL_OPTION_VERIFY = 2,
  /**
   * int. Session: positions of the cache, at most the model's. 0, the default, means the model's, or fewer
   * if the cache would take more than four times the file's size and more than 64 MiB.
   */
  CBL_OPTION_CONTEXT = 3,
  /** int. Session: type of the cache, a cbl_cache. CBL_CACHE_F16 by default. */
  CBL_OPTION_CACHE = 4,
  /**
   * int, 1 to 64. Session: threads that share the work, the calling one among them. 1, the default,
   * starts no thread.
   */
  CBL_OPTION_THREADS = 5,
  /**
   * int, from 1. Session: how many tokens of a prompt are evaluated at once. More is faster and
   * takes more memory. 64 by default.
   */
  CBL_OPTION_CHUNK = 6,
  /**
   * int, 0 or 1. Session: compute the logits of every token, for cbl_session_evaluate_each(). 0 by
   * default.
   */
  CBL_OPTION_ALL_LOGITS = 7,
  /** string. Session: name of the instruction set to use, see cbl_isa_name(). The best one by default. */
  CBL_OPTION_ISA = 8,
  /** int, from 0. Generation: the most tokens to generate. 128 by default. */
  CBL_OPTION_MAX_TOKENS = 9,
  /**
   * float, 0 to 100. Generation: 0, the default, takes the most probable token; 1 draws from the
   * model's own distribution; less than 1 sharpens it.
   */
  CBL_OPTION_TEMPERATURE = 10,
  /** int, from 0. Generation: draw from this number of most probable tokens only. 0, the default: all. */
  CBL_OPTION_TOP_K = 11,
  /**
   * float, over 0 to 1. Generation: draw from the most probable tokens that together have this
   * probability. 1, the default: all.
   */
  CBL_OPTION_TOP_P = 12,
  /**
   * float, 0 to 1. Generation: draw from tokens at least so probable compared to the first only. 0,
   * the default: all.
   */
  CBL_OPTION_MIN_P = 13,
  /**
   * float, 0.01 to 100. Generation: a value over 1 makes recent tokens less probable. 1, the
   * default, changes nothing.
   */
  CBL_OPTION_REPETITION_PENALTY = 14,
  /**
   * int, from 0. Generation: how many of the last tokens, those of the prompt among them, count as
   * recent. 0: all. 64 by default.
   */
  CBL_OPTION_REPETITION_WINDOW = 15,
  /**
   * int, all 64 bits count. Generation: the same seed draws the same tokens on every machine. 0 by
   * default.
   */
  CBL_OPTION_SEED = 16,
  /** int, 0 or 1. Generation: go on behind the end-of-text token. 0 by default. */
  CBL_OPTION_IGNORE_END_OF_TEXT = 17,
  /**
   * int, 0 or 1. Tokenizing: read special tokens such as <|endoftext|> that are written in the text
   * as such. 0 by default, because text from outside must not speak with the program's voice.
   */
  CBL_OPTION_PARSE_SPECIAL = 18,
  /**
   * int, 0 to 15. Session: the most tokens that are guessed, from what followed the last ones before,
   * and evaluated along with a single one. A right guess saves a pass over the weights; guesses are
   * made where they pay, and change no result. Takes memory for so many rows of logits. 4 by default.
   */
  CBL_OPTION_DRAFT = 19,
  /** int. Embedding: how tokens become one vector, a cbl_pooling. CBL_POOLING_MEAN by default. */
  CBL_OPTION_POOLING = 20,
  /**
   * string. Classification: where text and label stand in what the model reads, with `{text}` and
   * `{label}` once each and in this order; what comes behind the label, up to a line's end, marks its
   * end. "Utterance: {text}\nIntent: {label}\n" by default.
   */
  CBL_OPTION_TEMPLATE = 21,
  /**
   * int. Classification: how a label's length counts, a cbl_normalization. CBL_NORMALIZATION_SUM by
   * default.
   */
  CBL_OPTION_NORMALIZATION = 22,
  /**
   * int. Classification: what is taken off a label's score, a cbl_calibration. CBL_CALIBRATION_NONE by
   * default.
   */
  CBL_OPTION_CALIBRATION = 23,
  /**
   * string. Generation: the text is one of these choices, each on a line of its own, and may begin with
   * a space. Empty, the default: any text.
   *
   * This option and the two that follow need a build with cbl_has_constraints(), and each takes the
   * place of the others. What makes no sense is refused when it is set. Stop strings, the most tokens or
   * a full context may still cut the text. The first such generation takes some tens of milliseconds to
   * prepare the vocabulary; setting and preparing need a thread of their own for the time, else they give
   * CBL_NO_THREADS. In a batch every text has this form.
   */
  CBL_OPTION_CHOICES = 24,
  /**
   * string. Generation: the text matches this regular expression from beginning to end, so that anchors
   * are not needed: ^ at its beginning and $ at its end change nothing, and anywhere else they are refused,
   * as are look-around and back-references. Empty, the default: any text.
   */
  CBL_OPTION_REGEX = 25,
  /**
   * string. Generation: the text is JSON that follows this JSON schema (draft 2020-12; what is not
   * supported is an error), in one line, and may begin with a space. A number has at most 15 digits before
   * the point, 15 after it and 2 in its exponent, unless the schema leaves no choice; bounds and values
   * beyond 2^53 are refused. Empty, the default: any text.
   */
  CBL_OPTION_JSON_SCHEMA = 26,
  /**
   * int, from 0. Templates: the most tokens of each part's result, whatever the template asks for. 0, the
   * default: what the template asks for; that of a model file is limited, see cbl_template_named().
   */
  CBL_OPTION_TEMPLATE_TOKENS = 27,
};

/** Values of CBL_OPTION_ACCESS. */
typedef int32_t cbl_access;
enum {
  /**
   * Map the file: opens in milliseconds, and its pages are shared and can be evicted. Replace the
   * file only by renaming another one over it. If it was changed in place, calls that need it give
   * CBL_MODEL_CHANGED; but truncating it in the middle of a call raises SIGBUS.
   */
  CBL_ACCESS_MAP = 0,
  /** Read the file into memory: nothing that happens to it matters any more. */
  CBL_ACCESS_READ = 1,
};

/** Values of CBL_OPTION_CACHE. */
typedef int32_t cbl_cache;
enum {
  /** Keys and values as float16. */
  CBL_CACHE_F16 = 0,
  /** Keys and values as int8, about half the memory. */
  CBL_CACHE_INT8 = 1,
};

/** A set of options. */
typedef struct cbl_options cbl_options;

/**
 * Makes a set of options with all defaults. `*options` is NULL if that fails.
 *
 * Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_NO_MEMORY.
 */
cbl_status cbl_options_new(cbl_options **options);

/**
 * Frees a set of options. NULL is fine. Models and sessions made with it live on.
 *
 * Errors: CBL_BAD_HANDLE; CBL_BUSY, which frees nothing.
 */
cbl_status cbl_options_free(cbl_options *options);

/**
 * Why the last failed call that was to change these options failed: English, never NULL, valid until
 * the next call with them. After CBL_BUSY it says so, to the thread that got it.
 *
 * One thread at a time.
 */
const char *cbl_options_error(cbl_options *options);

/**
 * Sets an option whose kind is int. `key` is a cbl_option.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_UNSUPPORTED, CBL_BUSY.
 */
cbl_status cbl_options_set_int(cbl_options *options, int32_t key, int64_t value);

/**
 * Sets an option whose kind is float. `key` is a cbl_option.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_BUSY.
 */
cbl_status cbl_options_set_float(cbl_options *options, int32_t key, double value);

/**
 * Sets an option whose kind is string, to the `length` bytes at `value`. `key` is a cbl_option.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION,
 * CBL_NO_THREADS, CBL_UNSUPPORTED, CBL_BUSY.
 */
cbl_status cbl_options_set_string(cbl_options *options,
                                  int32_t key,
                                  const char *value,
                                  size_t length);

/**
 * Adds a stop string, `length` bytes of UTF-8 that are copied. Generating text ends before the first
 * stop string that appears, however tokens cut it; no part of it is ever passed on.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION if
 * it is empty, CBL_NO_MEMORY, CBL_BUSY.
 */
cbl_status cbl_options_add_stop(cbl_options *options,
                                const char *stop,
                                size_t length);

/**
 * Removes all stop strings.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_options_clear_stops(cbl_options *options);

/**
 * Adds `bias` to the logit of a token before all else, -1000 to 1000: -100 all but forbids it, 100 all but
 * forces it, 0 undoes what was set. A generation or a choice by a model that does not have the token fails
 * with CBL_BAD_OPTION.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_NO_MEMORY, CBL_BUSY.
 */
cbl_status cbl_options_set_logit_bias(cbl_options *options,
                                      uint32_t token,
                                      double bias);

/**
 * Removes all that cbl_options_set_logit_bias() has set.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_options_clear_logit_biases(cbl_options *options);

/* ---- Models -------------------------------------------------------------------------------
 *
 * A model is opened from a file, a descriptor or memory, never changes, and may be shared by any number
 * of sessions and threads. Sessions keep what they need of it alive, so it may be freed before them.
 *
 * The file of a model that is mapped may be removed, or replaced by renaming another one over it. If it is
 * written to or truncated instead, the functions that need the file return CBL_MODEL_CHANGED from then
 * on; those that do not list this status work from memory.
 *
 * Functions that fail write a message to a buffer of the caller's: `message_size` bytes at `message`,
 * which may be NULL. 256 bytes are plenty. The text ends with a zero byte, is cut if it is too long, and
 * is empty after a success.
 */

/** A model that is open. */
typedef struct cbl_model cbl_model;

/** What there is to know about a model. Later versions may add fields at the end. */
typedef struct {
  /** Name of the family of networks, such as "gpt2" or "llama". Static. */
  const char *architecture;
  /**
   * Hash of the checkpoint the model was made from, after the algorithm's name and a colon; "" if
   * the file does not say. Valid as long as the model.
   */
  const char *digest;
  /** Length of the model file in bytes. */
  uint64_t file_bytes;
  /** Number of weights. */
  uint64_t parameters;
  /** Bits per weight of the matrices, scales included. */
  double bits_per_weight;
  /** Number of tokens: ids are below it, and so many logits come out. */
  uint32_t vocabulary;
  /** Positions that the model was trained on: the default, and mostly the limit, of a session's. */
  uint32_t context;
  /** Width of the embeddings. */
  uint32_t embedding;
  /** Number of layers. */
  uint32_t layers;
  /** Number of attention heads per layer. */
  uint32_t heads;
  /** The token that ends a text, or -1. */
  int32_t end_of_text;
  /** Whether the file holds a tokenizer. */
  bool has_tokenizer;
  /** Whether the weights lie in a mapped file and so take no private memory. */
  bool is_mapped;
} cbl_model_info;

/** The memory that a session will take. Later versions may add fields at the end. */
typedef struct {
  /**
   * Length of the model file: mapped, shared with other processes and evictable, unless it is read.
   * Not part of the total.
   */
  uint64_t weights_bytes;
  /** The cache of keys and values. */
  uint64_t cache_bytes;
  /** Activations, logits, the sampler's buffers, each thread's buffers. */
  uint64_t scratch_bytes;
  /** What the session allocates, or takes from the arena: the sum of the two above. */
  uint64_t total_bytes;
} cbl_memory_plan;

/**
 * Opens the model file at `path`, which ends with a zero byte (any bytes on Unix, UTF-8 elsewhere).
 * `options` may be NULL. `*model` is NULL if that fails.
 *
 * By default the file is mapped and only its header is read: see CBL_OPTION_ACCESS, CBL_OPTION_VERIFY and,
 * if they take long, cbl_options_set_progress().
 *
 * Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_IO, CBL_BAD_MODEL, CBL_NO_MEMORY, CBL_CANCELLED, CBL_BUSY;
 * CBL_MODEL_CHANGED if the file is changed meanwhile.
 */
cbl_status cbl_model_open(const char *path,
                          const cbl_options *options,
                          cbl_model **model,
                          char *message,
                          size_t message_size);

/**
 * As cbl_model_open(), from a file descriptor of a regular file. The descriptor stays the caller's, with
 * its offset, and may be closed afterwards. On Unix only.
 *
 * Thread-safe. Errors: those of cbl_model_open(), CBL_UNSUPPORTED.
 */
cbl_status cbl_model_open_fd(int32_t fd,
                             const cbl_options *options,
                             cbl_model **model,
                             char *message,
                             size_t message_size);

/**
 * As cbl_model_open_fd(), from a part of the file: `length` bytes from `offset` on, wherever the
 * descriptor's own offset is. For a model inside of a package, such as what AAsset_openFileDescriptor64()
 * tells of on Android.
 *
 * To be mapped, the part must be stored uncompressed and begin at a multiple of 64 bytes, which zipalign
 * and most packagers see to; otherwise CBL_BAD_ARGUMENT says so, and CBL_ACCESS_READ takes it. A model
 * that is mapped counts as changed when any part of the file was.
 *
 * Thread-safe. Errors: those of cbl_model_open_fd(); CBL_BAD_ARGUMENT also if the file has no such part.
 */
cbl_status cbl_model_open_fd_range(int32_t fd,
                                   uint64_t offset,
                                   uint64_t length,
                                   const cbl_options *options,
                                   cbl_model **model,
                                   char *message,
                                   size_t message_size);

/**
 * As cbl_model_open(), from the `size` bytes at `data`: flash, an asset, a buffer. They begin on a
 * 64-byte boundary, are not copied, and stay valid and unchanged until the model and all its sessions
 * are freed.
 *
 * Thread-safe. Errors: those of cbl_model_open().
 */
cbl_status cbl_model_open_memory(const void *data,
                                 size_t size,
                                 const cbl_options *options,
                                 cbl_model **model,
                                 char *message,
                                 size_t message_size);

/**
 * Frees a model. NULL is fine. Its sessions live on, and with them what they need of it.
 *
 * No other call may be using the handle. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_model_free(cbl_model *model);

/**
 * Tells about a model. `size` is `sizeof *info`.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT.
 */
cbl_status cbl_model_get_info(const cbl_model *model, cbl_model_info *info, size_t size);

/**
 * Tells what memory a session with these options will take, to the byte, before anything is allocated.
 * `options` may be NULL; `size` is `sizeof *plan`.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_MEMORY if it is more
 * than an address can reach, CBL_BUSY.
 */
cbl_status cbl_model_plan(const cbl_model *model,
                          const cbl_options *options,
                          cbl_memory_plan *plan,
                          size_t size,
                          char *message,
                          size_t message_size);

/**
 * Reads the whole model and checks every checksum. They find accidents, not forgeries.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_MODEL with the name of a damaged tensor,
 * CBL_MODEL_CHANGED.
 */
cbl_status cbl_model_verify(const cbl_model *model, char *message, size_t message_size);

/**
 * Brings the model's pages into memory and keeps them there as long as the model and its sessions live,
 * so that no evaluation waits for the disk. Takes the time to read what is not there yet. Evaluations may
 * go on meanwhile. If the system refuses, the message names the bytes and the limit (RLIMIT_MEMLOCK), and
 * the model can be used as before.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_MODEL_CHANGED.
 */
cbl_status cbl_model_lock_memory(const cbl_model *model,
                                 char *message,
                                 size_t message_size);

/* ---- Sessions -----------------------------------------------------------------------------
 *
 * A session is one sequence of tokens with its cache of keys and values and every buffer that it needs,
 * allocated when it is made. Evaluating, sampling and generating tokens allocate nothing.
 *
 * A session is for one thread at a time. A call on a session that is in use, by another thread or by
 * the call whose callback this is, returns CBL_BUSY and does nothing. Functions that take a
 * `const cbl_session *` may be called at any time from any thread.
 */

/** Why a generation ended. */
typedef int32_t cbl_stop_reason;
enum {
  /** It did not: there was none, it failed, or it is on its way. */
  CBL_STOP_NONE = 0,
  /** The model chose the end-of-text token. */
  CBL_STOP_END_OF_TEXT = 1,
  /** As many tokens as were asked for. */
  CBL_STOP_MAX_TOKENS = 2,
  /** A stop string appeared. */
  CBL_STOP_STRING = 3,
  /** The session has no position left. */
  CBL_STOP_CONTEXT_FULL = 4,
  /** The callback returned false, or cbl_session_cancel() or cbl_generation_end() was called. */
  CBL_STOP_CANCELLED = 5,
  /** The text is all that CBL_OPTION_CHOICES, CBL_OPTION_REGEX or CBL_OPTION_JSON_SCHEMA asks for. */
  CBL_STOP_COMPLETE = 6,
  /** The tokens that were asked for, or the session's positions, ran out before it was. */
  CBL_STOP_INCOMPLETE = 7,
};

/** A sequence of tokens and what it takes to continue it. */
typedef struct cbl_session cbl_session;

/**
 * Receives the logits of the token at `position`: `count` floats, gone when the callback returns. Return
 * false to receive no more; the evaluation goes on. Must not throw or longjmp. Called on the thread that
 * called the library, in its floating-point environment.
 */
typedef bool (*cbl_logits_callback)(void *user,
                                    size_t position,
                                    const float *logits,
                                    size_t count);

/** What a session has done. Later versions may add fields at the end. */
typedef struct {
  /** Name of the instruction set in use. Static. */
  const char *isa;
  /** Positions that the session has. */
  uint64_t context;
  /** Positions in use. */
  uint64_t position;
  /** Threads that share the work. */
  uint64_t threads;
  /** Tokens evaluated since the session was made. */
  uint64_t evaluated_tokens;
  /** Time that took, sampling included. */
  double evaluation_seconds;
  /** Tokens of the last generation's prompt. */
  uint64_t prompt_tokens;
  /** Time to evaluate that prompt and choose the first token. */
  double prompt_seconds;
  /** Tokens that the last generation produced. */
  uint64_t generated_tokens;
  /** Time from the first to the last of them. */
  double generation_seconds;
  /** Why the last generation ended: a cbl_stop_reason. CBL_STOP_NONE while one is on its way. */
  int32_t stop_reason;
  /** 0. */
  int32_t reserved;
  /** Tokens that were guessed and evaluated along with others (CBL_OPTION_DRAFT). */
  uint64_t guessed_tokens;
  /** How many of them were right, and saved a pass each. */
  uint64_t right_guesses;
  /**
   * The last generation's last token, which is chosen but not evaluated, or -1: cbl_session_evaluate()
   * it to make the session hold all that was generated. -1 after the end-of-text token, and if there
   * is none.
   */
  int64_t pending_token;
} cbl_session_stats;

/**
 * Makes a session of a model. `options` may be NULL. `*session` is NULL if that fails.
 *
 * This is where memory is taken, all of it: as much as cbl_model_plan() says; and where threads are
 * started, if the options ask for more than one.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, also if the arena belongs to another session;
 * CBL_BAD_OPTION, CBL_NO_MEMORY, CBL_NO_THREADS, CBL_BUSY.
 */
cbl_status cbl_session_new(const cbl_model *model,
                           const cbl_options *options,
                           cbl_session **session,
                           char *message,
                           size_t message_size);

/**
 * Makes another session that holds the same tokens: both go on from a shared beginning, each on its
 * own. With NULL for `options` it is made as the first one was, but not in its arena; otherwise by the
 * options, with the same type of cache and a context that holds the tokens. `*fork` is NULL if that
 * fails.
 *
 * One thread at a time. Errors: those of cbl_session_new(); CBL_BAD_SAVED if the type of the cache
 * differs; CBL_CONTEXT_FULL; CBL_MODEL_CHANGED.
 */
cbl_status cbl_session_fork(cbl_session *session,
                            const cbl_options *options,
                            cbl_session **fork);

/**
 * Brings a session's memory into RAM and keeps it there as long as the session lives: all of
 * cbl_model_plan(), whatever of the cache is in use. See cbl_model_lock_memory() for the weights. If the
 * system refuses, the session can be used as before.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_session_lock_memory(cbl_session *session);

/**
 * Frees a session. NULL is fine.
 *
 * No other call may be using the handle, but that is checked: while a call runs, by another thread or
 * around the callback that this is called from, CBL_BUSY is returned and nothing is freed. Errors:
 * CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_session_free(cbl_session *session);

/**
 * Why the last failed call on this session failed: English, never NULL, valid until the next call on
 * it. For log files and developers; branch on the status instead. After CBL_BUSY it says so, to the
 * thread that got it; the message of the call that is running is not touched.
 *
 * One thread at a time.
 */
const char *cbl_session_error(cbl_session *session);

/**
 * Forgets every token. Costs nothing.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_reset(cbl_session *session);

/**
 * Forgets the tokens from `position` on, which is at most cbl_session_position(). Costs nothing.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_POSITION, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_rewind(cbl_session *session,
                              size_t position);

/**
 * The number of tokens in the session: the position of the next one. During a call, as it was before.
 * 0 for a bad handle.
 *
 * Thread-safe.
 */
size_t cbl_session_position(const cbl_session *session);

/**
 * The tokens in the session: `*tokens` points to `*count` ids, valid until the next call on it. NULL
 * and 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_tokens(cbl_session *session,
                              const uint32_t **tokens,
                              size_t *count);

/**
 * Appends `count` tokens. Afterwards the last one's logits can be read or sampled.
 *
 * One thread at a time. On failure the session is as before, but for the logits. Errors:
 * CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if `count` is 0, CBL_BAD_TOKEN, CBL_CONTEXT_FULL,
 * CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_evaluate(cbl_session *session, const uint32_t *tokens, size_t count);

/**
 * As cbl_session_evaluate(), and calls `callback` with the logits of every token, in order: what it
 * takes to score a text. The session must be made with CBL_OPTION_ALL_LOGITS.
 *
 * One thread at a time. Errors: those of cbl_session_evaluate(), CBL_MODEL_CHANGED among them;
 * CBL_BAD_OPTION.
 */
cbl_status cbl_session_evaluate_each(cbl_session *session,
                                     const uint32_t *tokens,
                                     size_t count,
                                     cbl_logits_callback callback,
                                     void *user);

/**
 * The last token's logits: `*logits` points to `*count` floats, one for each token of the vocabulary,
 * valid until the next call that evaluates, generates, resets, rewinds, restores or frees. NULL and 0
 * on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_logits(cbl_session *session,
                              const float **logits,
                              size_t *count);

/**
 * Chooses the next token from the last one's logits by the options for generation. The session does not
 * change: evaluate the token to go on. `options` may be NULL.
 *
 * The choice depends on the logits, the options, the session's tokens (for the repetition penalty) and
 * the position (which, with the seed, makes the random number), and on nothing else. `*token` is 0 on
 * failure.
 *
 * A single choice cannot follow CBL_OPTION_CHOICES, CBL_OPTION_REGEX or CBL_OPTION_JSON_SCHEMA, which
 * concern a text from its beginning: with one of them set it fails with CBL_BAD_OPTION.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_LOGITS, CBL_BUSY,
 * CBL_PANIC.
 */
cbl_status cbl_session_sample(cbl_session *session,
                              const cbl_options *options,
                              uint32_t *token);

/**
 * Stops the call that evaluates or generates on the session: within a fraction of a layer's time, or within
 * a few kilobytes of a text that is tokenized or cut. An evaluation then returns CBL_CANCELLED; a generation
 * returns CBL_OK and CBL_STOP_CANCELLED. Only what prepares a constraint is finished first, a second for
 * 100 000 choices.
 *
 * The request is used up by the call that is running, even if it comes too late to stop it. If none is
 * running, it stops the next call that evaluates, generates, scores, classifies, embeds or applies a template;
 * cbl_session_clear_cancel() takes it back.
 *
 * Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_session_cancel(const cbl_session *session);

/**
 * Takes back a request of cbl_session_cancel() that no call has followed yet.
 *
 * Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_session_clear_cancel(const cbl_session *session);

/**
 * A word for a cbl_stop_reason, such as "max_tokens", for logs. For any number; static.
 *
 * Thread-safe.
 */
const char *cbl_stop_reason_name(int32_t reason);

/**
 * Tells what a session has done. `size` is `sizeof *stats`.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_get_stats(cbl_session *session, cbl_session_stats *stats, size_t size);

/* ---- Generation ---------------------------------------------------------------------------
 *
 * A generation evaluates a prompt behind whatever the session holds already, then chooses and evaluates
 * token after token, passing on each as it comes, until there is a reason to stop. To hold a
 * conversation, generate again on the same session; to start over, cbl_session_reset() first.
 *
 * What the session holds afterwards: what it held, the prompt, and what was generated but for the last
 * token, which is chosen and passed on but not evaluated. A stop string that appeared is in the session
 * although it was not passed on. If a prompt's evaluation was cancelled, none of it is there.
 *
 * That token is cbl_session_stats.pending_token: evaluate it with cbl_session_evaluate() if the next prompt
 * is to come behind the whole answer, or pass it alone to cbl_generate_from_tokens() to go on with a text
 * that ended by CBL_STOP_MAX_TOKENS. To forget an exchange, note cbl_session_position() before it and go
 * back there with cbl_session_rewind().
 */

/**
 * Receives a piece of text: `length` bytes of whole UTF-8 characters, not ended by a zero byte, gone
 * when the callback returns. Return false to stop. Called on the thread that called the library, in its
 * floating-point environment; `user` is what was given with the callback, and may be NULL.
 *
 * Calls on the session that is generating return CBL_BUSY, but cbl_session_cancel() and
 * cbl_session_position() work. Must not throw or longjmp.
 */
typedef bool (*cbl_text_callback)(void *user, const char *text, size_t length);

/** Receives a token id. Return false to stop. Otherwise as cbl_text_callback. */
typedef bool (*cbl_token_callback)(void *user, uint32_t token);

/**
 * A token of a generation, and the text that has become certain with it. Later versions may add fields at
 * the end.
 */
typedef struct {
  /** The token, or -1 if text that was held back follows the last one. */
  int64_t token;
  /** Whole characters, not ended by a zero byte; often none. */
  const char *text;
  /** Bytes of the text. */
  size_t length;
  /**
   * The logits that the token was chosen from, one for each token of the vocabulary, before bias and
   * penalty: cbl_top_tokens() and cbl_log_probabilities() make probabilities of them. NULL if there is
   * no token, or a constraint left no choice.
   */
  const float *logits;
  /** How many logits. */
  size_t logits_count;
} cbl_step;

/**
 * Receives a step of a generation; all that it points to is gone when the callback returns. Return false
 * to stop. Otherwise as cbl_text_callback.
 */
typedef bool (*cbl_step_callback)(void *user, const cbl_step *step);

/**
 * Continues a text: `length` bytes of UTF-8 at `prompt`, tokenized with the model's tokenizer. An empty
 * one starts a new text: it stands for the end-of-text token. The callback receives the text that follows
 * as soon as it is certain: whole characters, and nothing that may be the beginning of a stop string.
 *
 * `options` may be NULL, for at most 128 tokens, each the most probable one. `reason` may be NULL, or
 * receives why the generation ended.
 *
 * One thread at a time. On failure the session may hold the prompt and what was passed on; see
 * cbl_session_position(). Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8,
 * CBL_NO_TOKENIZER, CBL_BAD_TEXT, CBL_CONTEXT_FULL if the prompt does not fit, CBL_BAD_OPTION if the
 * form that the text must have is too complex, no token of the model goes on with it, or the model lacks a
 * token that is biased, CBL_NO_THREADS if such a form cannot be prepared, CBL_MODEL_CHANGED,
 * CBL_NON_FINITE, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_generate(cbl_session *session,
                        const cbl_options *options,
                        const char *prompt,
                        size_t length,
                        cbl_text_callback callback,
                        void *user,
                        cbl_stop_reason *reason);

/**
 * As cbl_generate(), from a prompt of `count` token ids; none of them starts a new text. Works in a
 * build that cannot tokenize.
 *
 * One thread at a time. Errors: those of cbl_generate(), CBL_MODEL_CHANGED among them; CBL_BAD_TOKEN.
 */
cbl_status cbl_generate_from_tokens(cbl_session *session,
                                    const cbl_options *options,
                                    const uint32_t *prompt,
                                    size_t count,
                                    cbl_text_callback callback,
                                    void *user,
                                    cbl_stop_reason *reason);

/**
 * Continues a prompt of `count` token ids, none of which starts a new text, with token ids: needs no
 * tokenizer. Stop strings are not looked for. The token that ends a text is not passed on.
 *
 * One thread at a time. Errors: those of cbl_generate_from_tokens() that concern no text,
 * CBL_MODEL_CHANGED among them.
 */
cbl_status cbl_generate_tokens(cbl_session *session,
                               const cbl_options *options,
                               const uint32_t *prompt,
                               size_t count,
                               cbl_token_callback callback,
                               void *user,
                               cbl_stop_reason *reason);

/**
 * As cbl_generate_from_tokens(), telling of every token, the text that is certain with it, and what it
 * was chosen from.
 *
 * One thread at a time. Errors: those of cbl_generate_from_tokens(), CBL_MODEL_CHANGED among them.
 */
cbl_status cbl_generate_steps(cbl_session *session,
                              const cbl_options *options,
                              const uint32_t *prompt,
                              size_t count,
                              cbl_step_callback callback,
                              void *user,
                              cbl_stop_reason *reason);

/* ---- Generation on demand -----------------------------------------------------------------
 *
 * The same generation for a loop of your own: the library works only while you ask for the next token.
 * Stop strings, whole characters, constraints and cbl_session_cancel() are as in "Generation".
 *
 *     uint64_t generation;
 *     cbl_stop_reason reason = CBL_STOP_NONE;
 *     cbl_step step;
 *     cbl_status status = cbl_generation_begin(session, options, "Once", 4, &generation);
 *     while (status == CBL_OK) {
 *       status = cbl_generation_next(session, generation, &step, sizeof step, &reason);
 *       if (status != CBL_OK || reason != CBL_STOP_NONE) break;
 *       fwrite(step.text, 1, step.length, stdout);
 *     }
 *     cbl_generation_end(session, generation, NULL);
 *
 * A generation is a number, there is nothing to free, and a session has one at a time. It goes on as long
 * as the session stays as it left it. These functions leave it so: cbl_session_tokens(),
 * cbl_session_logits(), cbl_session_sample(), cbl_session_get_stats(), cbl_session_fork() (the fork has no
 * generation), cbl_session_save(), cbl_session_save_file(), cbl_session_lock_memory(), and those that take
 * a `const cbl_session *`.
 * Every other call on the session ends the generation, also a call that fails, CBL_BUSY apart:
 * cbl_generation_next() then returns CBL_NO_GENERATION.
 */

/**
 * Begins to continue a text, as cbl_generate() does. Nothing is evaluated yet: the first
 * cbl_generation_next() evaluates the prompt. `*generation` is 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER,
 * CBL_BAD_TEXT, CBL_CONTEXT_FULL if the prompt does not fit, CBL_BAD_OPTION, CBL_MODEL_CHANGED,
 * CBL_CANCELLED if a request came before the prompt was tokenized, CBL_NO_MEMORY, CBL_UNSUPPORTED,
 * CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_generation_begin(cbl_session *session,
                                const cbl_options *options,
                                const char *prompt,
                                size_t length,
                                uint64_t *generation);

/**
 * As cbl_generation_begin(), from a prompt of `count` token ids; none of them starts a new text. Works in
 * a build that cannot tokenize. If the model file holds no tokenizer, steps have no text, and stop strings
 * are refused with CBL_NO_TOKENIZER.
 *
 * One thread at a time. Errors: those of cbl_generation_begin(), CBL_MODEL_CHANGED among them;
 * CBL_BAD_TOKEN.
 */
cbl_status cbl_generation_begin_from_tokens(cbl_session *session,
                                            const cbl_options *options,
                                            const uint32_t *prompt,
                                            size_t count,
                                            uint64_t *generation);

/**
 * Evaluates what is to be evaluated and chooses the next token: `*step` receives it, with the text that
 * has become certain, which is often empty. `size` is `sizeof *step`. What the step points to is valid
 * until the next call on the session.
 *
 * When the generation has ended, `*reason` receives why and `*step` is empty: no token, no text; also if
 * called again. Before that `*reason` is CBL_STOP_NONE. A request of cbl_session_cancel() that came since
 * the last call ends the generation at once. Allocates nothing, unless there is a constraint.
 *
 * One thread at a time. A failure ends the generation; the session holds what was evaluated before.
 * Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_GENERATION, CBL_BAD_OPTION if a constraint fails,
 * CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_NO_MEMORY, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_generation_next(cbl_session *session,
                               uint64_t generation,
                               cbl_step *step,
                               size_t size,
                               cbl_stop_reason *reason);

/**
 * Ends a generation, whether it has come to its end or not, and takes back a request of
 * cbl_session_cancel(), so that it does not stop the call that follows. `reason` may be NULL, or receives
 * why the generation ended: CBL_STOP_CANCELLED if it had not. If it failed or is none of the session's,
 * nothing is done, and that is no error: CBL_STOP_NONE.
 *
 * Not needed if the session is not used any more, or another generation begins on it. The session then
 * holds what "Generation" says of it; cbl_session_stats has the figures.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_generation_end(cbl_session *session,
                              uint64_t generation,
                              cbl_stop_reason *reason);

/* ---- Text ---------------------------------------------------------------------------------
 *
 * From text to token ids and back, with the tokenizer in the model file. Its tables are copied at the
 * first use if the file is mapped: about 1 MB for 50 000 tokens.
 */

/**
 * Turns `length` bytes of UTF-8 into token ids: `*count` receives their number, and `tokens`, which has
 * room for `capacity`, receives them if they fit. Room for as many tokens as bytes always suffices; call
 * with a capacity of 0 to ask first. `options` may be NULL; CBL_OPTION_PARSE_SPECIAL counts.
 *
 * The first call takes some tens of milliseconds to build the tokenizer.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER,
 * CBL_BAD_TEXT, CBL_BUFFER_TOO_SMALL, CBL_MODEL_CHANGED, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY,
 * CBL_PANIC.
 */
cbl_status cbl_model_tokenize(const cbl_model *model,
                              const cbl_options *options,
                              const char *text,
                              size_t length,
                              uint32_t *tokens,
                              size_t capacity,
                              size_t *count,
                              char *message,
                              size_t message_size);

/**
 * Turns token ids into the bytes they stand for: `*length` receives their number, and `text`, which has
 * room for `capacity`, receives them if they fit; no zero byte is added. Call with a capacity of 0 to
 * ask first. A token may be part of a character, so the bytes of some tokens may be no whole UTF-8.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_TOKEN, CBL_NO_TOKENIZER,
 * CBL_BAD_TEXT, CBL_BUFFER_TOO_SMALL, CBL_MODEL_CHANGED, CBL_NO_MEMORY, CBL_PANIC.
 */
cbl_status cbl_model_detokenize(const cbl_model *model,
                                const uint32_t *tokens,
                                size_t count,
                                char *text,
                                size_t capacity,
                                size_t *length,
                                char *message,
                                size_t message_size);

/**
 * The bytes that one token stands for: `*bytes` points to `*length` bytes inside the model, valid as
 * long as it whatever happens to its file, not ended by a zero byte. NULL and 0 on failure, and for a
 * token that stands for nothing.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_TOKEN, CBL_NO_TOKENIZER,
 * CBL_BAD_TEXT, CBL_MODEL_CHANGED, CBL_NO_MEMORY, CBL_PANIC.
 */
cbl_status cbl_model_token_bytes(const cbl_model *model,
                                 uint32_t token,
                                 const char **bytes,
                                 size_t *length);

/* ---- Scores and embeddings ----------------------------------------------------------------
 *
 * How probable tokens and given continuations are, and what a text is like, as a vector: all without
 * generating anything.
 */

/** Values of CBL_OPTION_POOLING: how the hidden states of a text's tokens become one embedding. */
typedef int32_t cbl_pooling;
enum {
  /** Their mean. */
  CBL_POOLING_MEAN = 0,
  /** The last token's, which has seen all the others. */
  CBL_POOLING_LAST = 1,
};

/**
 * Tells how probable tokens are by the `count` logits at `logits`, from wherever: a session, a batch, a
 * callback. `log_probabilities` has room for as many results as there are tokens, `token_count`; each is
 * the natural logarithm of the probability of the token at its place in `tokens`, before temperature,
 * bias and penalty.
 *
 * Thread-safe. Errors: CBL_BAD_ARGUMENT, also if there are no logits; CBL_BAD_TOKEN if a token is not below
 * `count`.
 */
cbl_status cbl_log_probabilities(const float *logits,
                                 size_t count,
                                 const uint32_t *tokens,
                                 size_t token_count,
                                 double *log_probabilities);

/**
 * Finds the `capacity` most probable tokens by the `count` logits at `logits`, from wherever. `tokens` and
 * `log_probabilities`, which may be NULL, have room for so many results, the most probable first, the
 * lower id first among equals; `*found` receives how many there are, which is less than `capacity` only if
 * there are not more tokens.
 *
 * Thread-safe. Takes 4 bytes per logit from the heap meanwhile. Errors: CBL_BAD_ARGUMENT, also if there are
 * no logits; CBL_NO_MEMORY.
 */
cbl_status cbl_top_tokens(const float *logits,
                          size_t count,
                          uint32_t *tokens,
                          double *log_probabilities,
                          size_t capacity,
                          size_t *found);

/**
 * Computes how probable `count` continuations of a prompt are: `continuations` points to so many texts
 * of UTF-8, each ended by a zero byte; `log_probabilities` has room for so many results. Each is the
 * natural logarithm of the probability of all of a continuation's tokens, one after the other.
 * `lengths`, which may be NULL, receives how many tokens each has; log_probability / length is what to
 * compare if long ones are not to lose for their length, and exp() of its negative is the perplexity.
 *
 * The prompt, `length` bytes, comes behind what the session holds and stays in it, so more
 * continuations can be scored with an empty one; the continuations are not kept. An empty prompt in an
 * empty session stands for the beginning of a text. Prompt and continuations are tokenized apart: the
 * space before a word belongs to the continuation (" time", not "time").
 *
 * Continuations are evaluated together, and what their beginnings have in common only once. That is
 * fastest in a session made with CBL_OPTION_ALL_LOGITS. `options` may be NULL;
 * CBL_OPTION_PARSE_SPECIAL counts.
 *
 * One thread at a time. On failure the session is as before, but for the logits, which are gone in any
 * case; results are written on success only. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT, also if a
 * continuation is empty; CBL_INVALID_UTF8; CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL if prompt
 * and longest continuation do not fit; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_CANCELLED;
 * CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_score(cbl_session *session,
                     const cbl_options *options,
                     const char *prompt,
                     size_t length,
                     const char *const *continuations,
                     size_t count,
                     double *log_probabilities,
                     size_t *lengths);

/**
 * As cbl_score(), in token ids: a prompt of `prompt_count`, and `count` continuations that lie one after
 * another at `tokens`, of `lengths[0]`, `lengths[1]`, ... tokens. `each` may be NULL, or has room for
 * the natural logarithm of the probability of each of all these tokens after those before it. Works in
 * a build that cannot tokenize.
 *
 * One thread at a time. Errors: those of cbl_score() that concern no text, CBL_MODEL_CHANGED among them;
 * CBL_BAD_TOKEN.
 */
cbl_status cbl_score_tokens(cbl_session *session,
                            const uint32_t *prompt,
                            size_t prompt_count,
                            const uint32_t *tokens,
                            const size_t *lengths,
                            size_t count,
                            double *log_probabilities,
                            double *each);

/**
 * Computes the embedding of a text, `length` bytes of UTF-8: a vector of length one. Two texts are
 * similar if the dot product of their vectors is near one. `*count` receives the number of
 * elements, which is cbl_model_info.embedding. `embedding` has room for `capacity` elements, and
 * receives them if they all fit. `options` may be NULL; only CBL_OPTION_POOLING and
 * CBL_OPTION_PARSE_SPECIAL are used.
 *
 * The text replaces the tokens that the session holds.
 *
 * One thread at a time. The session is reset if the call fails. Errors: CBL_BAD_HANDLE;
 * CBL_BAD_ARGUMENT, also if the text is empty; CBL_INVALID_UTF8; CBL_BUFFER_TOO_SMALL;
 * CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL if the text is too long; CBL_MODEL_CHANGED;
 * CBL_NON_FINITE; CBL_CANCELLED; CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_embed(cbl_session *session,
                     const cbl_options *options,
                     const char *text,
                     size_t length,
                     float *embedding,
                     size_t capacity,
                     size_t *count);

/**
 * As cbl_embed(), of `count` token ids; `*width` receives the number of elements. Works in a build that
 * cannot tokenize.
 *
 * One thread at a time. Errors: those of cbl_embed() that concern no text, CBL_MODEL_CHANGED among them;
 * CBL_BAD_TOKEN.
 */
cbl_status cbl_embed_tokens(cbl_session *session,
                            const cbl_options *options,
                            const uint32_t *tokens,
                            size_t count,
                            float *embedding,
                            size_t capacity,
                            size_t *width);

/* ---- Classification -----------------------------------------------------------------------
 *
 * Which of some labels fits a text: the one that the model finds the most probable behind it. Needs a
 * build that can tokenize.
 *
 *     const char *labels[] = {"alarm", "timer", "weather"};
 *     cbl_classifier *classifier;
 *     cbl_classifier_new(model, NULL, labels, 3, &classifier, NULL, 0);
 *     cbl_classify(session, classifier, "wake me at six", 14, &best, NULL, 0);
 *
 * A template says how text and label stand in what the model reads; it decides about quality, so give
 * the form that the model was trained on, or show it some examples.
 */

/** Values of CBL_OPTION_NORMALIZATION: how the length of labels counts. */
typedef int32_t cbl_normalization;
enum {
  /** A label's score is its log-probability, which is less the longer it is. */
  CBL_NORMALIZATION_SUM = 0,
  /** Its log-probability divided by its number of tokens. */
  CBL_NORMALIZATION_MEAN = 1,
};

/**
 * Values of CBL_OPTION_CALIBRATION: what is taken off a label's score because the model prefers some
 * labels whatever the text. It is found out at a classifier's first use.
 */
typedef int32_t cbl_calibration;
enum {
  /** Nothing. */
  CBL_CALIBRATION_NONE = 0,
  /** What it is on average behind texts that say nothing (Zhao et al., Calibrate Before Use, 2021). */
  CBL_CALIBRATION_CONTENT_FREE = 1,
  /** What it is without any text (Holtzman et al., Surface Form Competition, 2021). */
  CBL_CALIBRATION_MUTUAL_INFORMATION = 2,
};

/** Labels, and how to tell which of them fits. */
typedef struct cbl_classifier cbl_classifier;

/**
 * Prepares to choose among `count` labels: `labels` points to so many texts of UTF-8, each ended by a
 * zero byte. No two are equal, and none is blank. One may begin another.
 *
 * `options` may be NULL; CBL_OPTION_TEMPLATE, CBL_OPTION_NORMALIZATION, CBL_OPTION_CALIBRATION and
 * cbl_options_add_example() count. Everything is copied. `*classifier` is NULL if that fails.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION if there are no
 * labels or one of them does not serve, CBL_NO_TOKENIZER, CBL_BAD_TEXT, CBL_MODEL_CHANGED,
 * CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_classifier_new(const cbl_model *model,
                              const cbl_options *options,
                              const char *const *labels,
                              size_t count,
                              cbl_classifier **classifier,
                              char *message,
                              size_t message_size);

/**
 * Frees a classifier. NULL is fine.
 *
 * No other call may be using the handle. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_classifier_free(cbl_classifier *classifier);

/**
 * Finds the label that fits a text best, `length` bytes of UTF-8: `*label` receives its index among
 * those of cbl_classifier_new(). `probabilities` may be NULL if `capacity` is 0, or has room for
 * `capacity` results and receives the probability of each label, which together are 1.
 *
 * The session is any of the classifier's model; its options do not change the result, but for the type
 * of the cache. What it holds is replaced, except for a beginning that is the same as last time, which
 * is not evaluated again: classify many texts in one session. It is fastest if the session is made
 * with CBL_OPTION_ALL_LOGITS.
 *
 * One thread at a time for the session; thread-safe for the classifier. Results are written on success
 * only. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT, also if the session is of another model;
 * CBL_INVALID_UTF8; CBL_BUFFER_TOO_SMALL if there are more labels than `capacity`; CBL_BAD_TEXT;
 * CBL_CONTEXT_FULL if the text is too long; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_CANCELLED;
 * CBL_NO_MEMORY; CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_classify(cbl_session *session,
                        const cbl_classifier *classifier,
                        const char *text,
                        size_t length,
                        size_t *label,
                        double *probabilities,
                        size_t capacity);

/**
 * Adds an example that the model is shown before every text to be classified: a text and its label, in
 * so many bytes of UTF-8 that are copied. A few of them help a model that was not trained on the task.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_UNSUPPORTED,
 * CBL_BUSY.
 */
cbl_status cbl_options_add_example(cbl_options *options,
                                   const char *text,
                                   size_t length,
                                   const char *label,
                                   size_t label_length);

/**
 * Removes all examples.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_options_clear_examples(cbl_options *options);

/* ---- Templates ----------------------------------------------------------------------------
 *
 * Translating, summarizing, or whatever else a template asks for: how the task is put to the model, with
 * a place for the text, and where the result ends. Needs a build that can tokenize.
 *
 *     cbl_template *translate;
 *     cbl_template_named(model, "translate", 9, &translate, NULL, 0);
 *     cbl_apply_template(session, translate, NULL, "I am hungry.", 12, on_text, NULL, NULL, 0);
 *
 * A model file may hold templates of its own; "summarize", "translate" (English to French) and some more
 * are built in, for models that were trained on text from the web.
 */

/** How a task is put to a model. */
typedef struct cbl_template cbl_template;

/** What came of a text. Later versions may add fields at the end. */
typedef struct {
  /** Parts that the text was cut into; 0 if it was blank. */
  uint64_t parts;
  /** Parts whose results were cut because they would have become too long. */
  uint64_t cut_parts;
  /** Tokens of the text, without the template. */
  uint64_t text_tokens;
  /** Tokens of the prompts. */
  uint64_t prompt_tokens;
  /** Tokens generated. */
  uint64_t generated_tokens;
  /** Time it took. */
  double seconds;
  /**
   * Why the last part's result ended: a cbl_stop_reason. CBL_STOP_STRING also if it has all the
   * sentences that the template wants.
   */
  int32_t stop_reason;
  /** 1 if the text was cut where its template alone would not have, to fit into the context; else 0. */
  int32_t split;
} cbl_template_result;

/**
 * Prepares a template by its name, `length` bytes: the model file's own, or a built-in one. An unknown
 * name gives a message that lists those that there are. `*prepared` is NULL if that fails.
 *
 * What a file's own template may ask for is limited, so that no file keeps a device busy for ever: a result
 * has at most one token for each KiB of the file, but may have 4096 in any case.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION,
 * CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_PANIC.
 */
cbl_status cbl_template_named(const cbl_model *model,
                              const char *name,
                              size_t length,
                              cbl_template **prepared,
                              char *message,
                              size_t message_size);

/**
 * Prepares a template from its text, `length` bytes of UTF-8: the prompt with `{text}` where the text
 * belongs; before it, if a line `---` ends them, lines of options, such as `stop: "\n"`, `max-tokens: 3x`
 * or `split: sentences` (docs/templates.md has them all). `*prepared` is NULL if that fails.
 *
 * Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION with a message that names
 * the line, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_PANIC.
 */
cbl_status cbl_template_new(const char *text,
                            size_t length,
                            cbl_template **prepared,
                            char *message,
                            size_t message_size);

/**
 * Frees a template. NULL is fine.
 *
 * No other call may be using the handle. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_template_free(cbl_template *prepared);

/**
 * Does what a template asks for with a text, `length` bytes of UTF-8. The callback receives the result as
 * it comes, without white space around it. A text that does not fit into the session's context is cut
 * between sentences, unless the template forbids it, and the result is that of its parts, one after the
 * other.
 *
 * What the session holds is replaced, except for a beginning that is the same as last time, which is not
 * evaluated again. Options for generation are the template's; of `options`, which may be NULL, only
 * CBL_OPTION_SEED and CBL_OPTION_TEMPLATE_TOKENS count. `result` may be NULL if `size` is 0; otherwise `size` is `sizeof *result`, and
 * it receives what came of the text. Cancelling gives CBL_OK and CBL_STOP_CANCELLED.
 *
 * One thread at a time for the session; thread-safe for the template, which serves any model. Errors:
 * CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_INVALID_UTF8; CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL
 * if the context is too small for the template, or for a text that must not be cut; CBL_MODEL_CHANGED;
 * CBL_NON_FINITE; CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_apply_template(cbl_session *session,
                              const cbl_template *prepared,
                              const cbl_options *options,
                              const char *text,
                              size_t length,
                              cbl_text_callback callback,
                              void *user,
                              cbl_template_result *result,
                              size_t size);

/* ---- Batches ------------------------------------------------------------------------------
 *
 * Several sequences at once: a pass over the weights evaluates tokens of all of them, so eight together
 * take little longer than one alone. Results are the same bits as of each in a session of its own.
 *
 * For many prompts, make a batch of as many sequences as memory allows (cbl_model_plan_batch()), and
 * give them all to cbl_batch_generate(): one that is done makes room for the next.
 */

/** Several sequences of tokens that are evaluated together, numbered from 0. */
typedef struct cbl_batch cbl_batch;

/**
 * Receives a piece of the text that continues prompt number `index`. Return false to end that text; the
 * others go on. Otherwise as cbl_text_callback.
 */
typedef bool (*cbl_batch_text_callback)(void *user,
                                        size_t index,
                                        const char *text,
                                        size_t length);

/**
 * Receives a token that continues prompt number `index`. Return false to end that text; the others go
 * on. Otherwise as cbl_text_callback.
 */
typedef bool (*cbl_batch_token_callback)(void *user, size_t index, uint32_t token);

/**
 * As cbl_model_plan(), for a batch of so many sequences, each with the context that the options say.
 *
 * Thread-safe. Errors: those of cbl_model_plan(); CBL_BAD_OPTION also if `sequences` is not in 1 to 1024.
 */
cbl_status cbl_model_plan_batch(const cbl_model *model,
                                const cbl_options *options,
                                size_t sequences,
                                cbl_memory_plan *plan,
                                size_t size,
                                char *message,
                                size_t message_size);

/**
 * Makes a batch of so many sequences, 1 to 1024, each with the context that the options say; they count
 * as for cbl_session_new(), but for CBL_OPTION_ALL_LOGITS, CBL_OPTION_DRAFT and an arena, which are not
 * used. `options` may be NULL. `*batch` is NULL if that fails.
 *
 * Thread-safe. Errors: those of cbl_session_new().
 */
cbl_status cbl_batch_new(const cbl_model *model,
                         const cbl_options *options,
                         size_t sequences,
                         cbl_batch **batch,
                         char *message,
                         size_t message_size);

/**
 * As cbl_session_lock_memory().
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_batch_lock_memory(cbl_batch *batch);

/**
 * Frees a batch. NULL is fine.
 *
 * No other call may be using the handle, but that is checked: CBL_BUSY frees nothing. Errors:
 * CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_batch_free(cbl_batch *batch);

/**
 * As cbl_session_error().
 *
 * One thread at a time.
 */
const char *cbl_batch_error(cbl_batch *batch);

/**
 * Forgets the tokens of a sequence from `position` on; all of them with 0. Costs nothing.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if there is no such sequence,
 * CBL_BAD_POSITION, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_rewind(cbl_batch *batch, size_t sequence, size_t position);

/**
 * The tokens in a sequence: `*tokens` points to `*count` ids, valid until the next call on the batch.
 * NULL and 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_tokens(cbl_batch *batch,
                            size_t sequence,
                            const uint32_t **tokens,
                            size_t *count);

/**
 * Appends tokens to `count` sequences, `sequences[i]` of which gets `lengths[i]` tokens, at least one;
 * all of them lie one after another at `tokens`. No sequence is named twice. Afterwards the logits of the
 * last token of each of these can be read or sampled, and of no other.
 *
 * One thread at a time. On failure all sequences are as before, but for the logits. Errors:
 * CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_BAD_OPTION if a sequence does not exist or is named twice;
 * CBL_BAD_TOKEN; CBL_CONTEXT_FULL; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_CANCELLED; CBL_NO_MEMORY;
 * CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_batch_evaluate(cbl_batch *batch,
                              const size_t *sequences,
                              const size_t *lengths,
                              size_t count,
                              const uint32_t *tokens);

/**
 * The logits of a sequence's last token, if the last cbl_batch_evaluate() named it: `*logits` points to
 * `*count` floats, one for each token of the vocabulary, valid until the next call that evaluates,
 * generates, rewinds or frees. NULL and 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_logits(cbl_batch *batch,
                            size_t sequence,
                            const float **logits,
                            size_t *count);

/**
 * As cbl_session_sample(), for a sequence. The token is not appended.
 *
 * One thread at a time. Errors: those of cbl_session_sample().
 */
cbl_status cbl_batch_sample(cbl_batch *batch,
                            size_t sequence,
                            const cbl_options *options,
                            uint32_t *token);

/**
 * Stops the evaluation or generation that is running on the batch, or else the next one, as
 * cbl_session_cancel() does on a session: it returns CBL_CANCELLED.
 *
 * Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_batch_cancel(const cbl_batch *batch);

/**
 * Takes back a request of cbl_batch_cancel() that no call has followed yet.
 *
 * Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_batch_clear_cancel(const cbl_batch *batch);

/**
 * Continues `count` prompts, any number: `prompts` points to so many texts of UTF-8, each ended by a
 * zero byte. Each is continued as cbl_generate() does in a session that is reset, as many at a time as
 * the batch has sequences; what they held is forgotten. The callback receives pieces of all of them as
 * they come. `options` may be NULL.
 *
 * `statuses` and `reasons` may be NULL, or have room for `count` results and receive what came of each
 * prompt: a prompt that cannot be continued, such as one that is too long, does not disturb the others.
 * If the options ask for texts of a given form, every text is given that form.
 *
 * One thread at a time. Takes some memory from the heap for each prompt and each pass. Returns the
 * status of the first prompt that failed, if none of what concerns all of them ended the call:
 * CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER, CBL_BAD_TEXT, CBL_BAD_OPTION,
 * CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC;
 * results are not written then.
 */
cbl_status cbl_batch_generate(cbl_batch *batch,
                              const cbl_options *options,
                              const char *const *prompts,
                              size_t count,
                              cbl_batch_text_callback callback,
                              void *user,
                              cbl_status *statuses,
                              cbl_stop_reason *reasons);

/**
 * As cbl_batch_generate(), in token ids: prompt `i` has `lengths[i]` tokens, none of which starts a new
 * text; all of them lie one after another at `tokens`. Works in a build that cannot tokenize. Stop
 * strings are not looked for. The token that ends a text is not passed on.
 *
 * One thread at a time. Errors: those of cbl_batch_generate() that concern no text, CBL_MODEL_CHANGED
 * among them; CBL_BAD_TOKEN and CBL_CONTEXT_FULL for single prompts.
 */
cbl_status cbl_batch_generate_tokens(cbl_batch *batch,
                                     const cbl_options *options,
                                     const uint32_t *tokens,
                                     const size_t *lengths,
                                     size_t count,
                                     cbl_batch_token_callback callback,
                                     void *user,
                                     cbl_status *statuses,
                                     cbl_stop_reason *reasons);

/* ---- Batches on demand --------------------------------------------------------------------
 *
 * cbl_batch_generate() for a loop of your own, as "Generation on demand" is cbl_generate(): the library
 * works only while you ask for the next step of whichever text has one.
 *
 *     uint64_t generation;
 *     bool more = true;
 *     cbl_batch_step step;
 *     cbl_status status = cbl_batch_begin(batch, options, prompts, count, &generation);
 *     while (status == CBL_OK) {
 *       status = cbl_batch_next(batch, generation, &step, sizeof step, &more);
 *       if (status != CBL_OK || !more) break;
 *       append(step.index, step.text, step.length);
 *     }
 *     cbl_batch_end(batch, generation);
 *
 * A batch has one generation at a time. cbl_batch_tokens(), cbl_batch_logits(), cbl_batch_sample() and
 * cbl_batch_lock_memory() leave it alone, and so do those that take a `const cbl_batch *`. Every other call
 * on the batch ends it, also a call that fails, CBL_BUSY apart.
 */

/** A step of a batch's generation. Later versions may add fields at the end. */
typedef struct {
  /** Which prompt it is of. */
  size_t index;
  /**
   * The token, or -1 if there is none: text that was held back follows the last one, or the text has
   * ended.
   */
  int64_t token;
  /** Whole characters, not ended by a zero byte; often none. */
  const char *text;
  /** Bytes of the text. */
  size_t length;
  /**
   * Why the text has ended: a cbl_stop_reason. CBL_STOP_NONE before that, and if the prompt could not
   * be continued.
   */
  int32_t reason;
  /** CBL_OK, or why the prompt could not be continued: a cbl_status. */
  int32_t status;
} cbl_batch_step;

/**
 * Begins to continue `count` prompts, as cbl_batch_generate() does. Nothing is evaluated yet.
 * `*generation` is 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER,
 * CBL_BAD_TEXT, CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_CANCELLED, CBL_NO_MEMORY, CBL_UNSUPPORTED,
 * CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_begin(cbl_batch *batch,
                           const cbl_options *options,
                           const char *const *prompts,
                           size_t count,
                           uint64_t *generation);

/**
 * As cbl_batch_begin(), in token ids, as cbl_batch_generate_tokens() takes them. Works in a build that
 * cannot tokenize. If the model file holds no tokenizer, steps have no text, and stop strings are refused
 * with CBL_NO_TOKENIZER.
 *
 * One thread at a time. Errors: those of cbl_batch_begin(), CBL_MODEL_CHANGED among them.
 */
cbl_status cbl_batch_begin_from_tokens(cbl_batch *batch,
                                       const cbl_options *options,
                                       const uint32_t *tokens,
                                       const size_t *lengths,
                                       size_t count,
                                       uint64_t *generation);

/**
 * The next step of any of the texts, after a pass over the weights if none waits: `*step` receives it.
 * `size` is `sizeof *step`. Its text is valid until the next call on the batch. The last step of each prompt
 * has no token and no text, but says in `reason` or `status` what came of it.
 *
 * When all prompts are done, `*more` is false and `*step` is empty, also if called again. Takes some memory
 * from the heap for each pass.
 *
 * One thread at a time. A failure ends the generation. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT,
 * CBL_NO_GENERATION, CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_NO_MEMORY,
 * CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_next(cbl_batch *batch,
                          uint64_t generation,
                          cbl_batch_step *step,
                          size_t size,
                          bool *more);

/**
 * Ends the text of prompt number `index`, as returning false from the callback of cbl_batch_generate()
 * does; the others go on. Steps of it that wait to be told still come, then its end with
 * CBL_STOP_CANCELLED, if it has no end yet.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if there is no such prompt,
 * CBL_NO_GENERATION, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_stop(cbl_batch *batch,
                          uint64_t generation,
                          size_t index);

/**
 * Ends a generation, whether all prompts are done or not, and takes back a request of cbl_batch_cancel(), so
 * that it does not stop the call that follows. If the generation is none of the batch's, nothing is done, and
 * that is no error.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_end(cbl_batch *batch,
                         uint64_t generation);

/* ---- Saving -------------------------------------------------------------------------------
 *
 * A session's tokens, cache and last logits as bytes: a prompt that is evaluated once can be restored
 * any number of times, in milliseconds, and goes on with the same bits. The bytes carry a fingerprint of
 * the model and a checksum, and fit any session of the same model and cache type with room for the
 * tokens, whatever its threads, chunk or instruction set. They are not encrypted: whoever can read them
 * can read the tokens, and the checksum finds accidents, not forgeries.
 */

/**
 * Saves a session to a buffer of `capacity` bytes. `*size` receives the size of what is saved, also if
 * the buffer is too small; call with a capacity of 0 to ask first.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUFFER_TOO_SMALL,
 * CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_save(cbl_session *session,
                            void *buffer,
                            size_t capacity,
                            size_t *size);

/**
 * Restores what cbl_session_save() wrote, `size` bytes at `data`, in place of what the session holds.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_SAVED, CBL_CONTEXT_FULL if
 * the session has too few positions, CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_restore(cbl_session *session,
                               const void *data,
                               size_t size);

/**
 * Saves a session to a file that only its owner may read, mode 0600, since it holds the tokens.
 *
 * The file is written beside `path`, flushed to the disk and renamed. So there is the old file or the new
 * one and never a part, also if several sessions save to one path at the same time. A symbolic link stands
 * for the file that it leads to. A device, a pipe, a socket or a directory is refused. A process that is
 * killed may leave a file `.NAME.<16 digits>.cbl-tmp`; the next call for the same path removes it.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_IO, CBL_NO_MEMORY,
 * CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_save_file(cbl_session *session,
                                 const char *path);

/**
 * Restores what cbl_session_save_file() wrote, from a regular file. The file is read twice, first to check
 * it; if it is changed or fails in between, the session is reset.
 *
 * One thread at a time. Errors: those of cbl_session_restore(), CBL_MODEL_CHANGED among them; CBL_IO.
 */
cbl_status cbl_session_restore_file(cbl_session *session,
                                    const char *path);

/* ---- What a host may bring along ----------------------------------------------------------
 *
 * A log, somebody to tell of progress, memory, threads. All are options, and none is needed.
 */

/** How much a log message matters. */
typedef int32_t cbl_log_level;
enum {
  /** A call failed because of a bug. */
  CBL_LOG_ERROR = 1,
  /** Something is worth looking at. */
  CBL_LOG_WARNING = 2,
  /** What was opened, made, generated. */
  CBL_LOG_INFO = 3,
};

/** What takes time when a model is opened. */
typedef int32_t cbl_stage;
enum {
  /** CBL_ACCESS_READ: the file is read into memory. */
  CBL_STAGE_READ = 1,
  /** CBL_OPTION_VERIFY: the checksums are computed. */
  CBL_STAGE_VERIFY = 2,
};

/**
 * Receives a log message: a cbl_log_level and English text that ends with a zero byte and is gone when
 * the callback returns. Called on the thread whose call it is about. Must not throw or longjmp.
 */
typedef void (*cbl_log_callback)(void *user, int32_t level, const char *message);

/**
 * Is told how far a model is opened: a cbl_stage, and with how many bytes of how many it is done. Called
 * at the beginning of each stage, every few mebibytes and at the end, on the thread that opens. Return
 * false to give up: the call then returns CBL_CANCELLED, and nothing is opened. Must not throw or
 * longjmp.
 */
typedef bool (*cbl_progress_callback)(void *user, int32_t stage, uint64_t done, uint64_t total);

/** One piece of work; see cbl_parallel_callback. */
typedef void (*cbl_task)(void *context, size_t index);

/**
 * The host's thread pool: calls `task(context, i)` exactly once for each `i` below `count`, on any
 * threads, at the same time or not, and returns when all these calls have returned.
 *
 * Tasks do not wait for each other, so running them one after another is correct too. Must not throw
 * or longjmp. A pool that leaves a task out or runs it twice is found out and gives CBL_PANIC.
 */
typedef void (*cbl_parallel_callback)(void *user, size_t count, cbl_task task, void *context);

/**
 * Sets where log messages of models and sessions made with these options go. NULL, the default, for
 * nowhere. The library never writes to standard output or standard error.
 *
 * `user` is passed to the callback. Both stay valid as long as any model or session made with these
 * options. The callback may be called on several threads at once if the host is.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_options_set_log(cbl_options *options,
                               cbl_log_callback callback,
                               void *user);

/**
 * Sets who is told of the progress of opening models with these options, and may give up. NULL, the
 * default, for nobody. To map a file takes no time worth telling of.
 *
 * `user` is passed to the callback. Both stay valid as long as any call that opens a model with these
 * options.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_options_set_progress(cbl_options *options,
                                    cbl_progress_callback callback,
                                    void *user);

/**
 * Sets memory to use for the session that is made with these options, in place of the heap: `bytes`
 * bytes from `memory`, which begins on a 64-byte boundary. NULL, the default, for none.
 *
 * It must hold the total of cbl_model_plan(). So many bytes are the session's alone until that is freed,
 * so set another one before making another session: CBL_BAD_ARGUMENT of cbl_session_new() and
 * cbl_session_fork() says that some of them belong to another session. Making the session writes zeros
 * to all of these bytes. The library takes nothing from the heap then but the session's handle (under
 * 2 KiB), a note of whose memory it is and, with more than one thread, what the system needs for
 * threads. Batches do not use an arena.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY.
 */
cbl_status cbl_options_set_arena(cbl_options *options,
                                 void *memory,
                                 size_t bytes);

/**
 * Sets a thread pool of the host's to run sessions on that are made with these options, in place of
 * threads of their own. `workers`, 1 to 64, says how many tasks can run at a time; CBL_OPTION_THREADS
 * is not used then. NULL, the default, for none.
 *
 * A forward pass calls the callback about ten times per layer, so the pool should answer in
 * microseconds. `user` is passed to the callback. Both stay valid as long as any session made with
 * these options. Results are the same bits whatever the pool does.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY.
 */
cbl_status cbl_options_set_pool(cbl_options *options,
                                cbl_parallel_callback callback,
                                size_t workers,
                                void *user);

#ifdef __cplusplus
}
#endif

#endif /* CEREBELLUM_H */
