/*
 * cerebellum.h: runs quantized GPT models on small devices. A model is one file, which is memory-mapped.
 *
 * Generated from src/ffi by cbindgen; do not edit.
 *
 * A whole program, without error handling:
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
 * Most programs need no more than these functions, cbl_session_reset(), cbl_session_error(), and options
 * for length, temperature and stop strings. For other purposes, see:
 *
 * - "Scores and embeddings", "Classification", and "Templates" (translating, summarizing);
 * - "Batches" for many texts at once;
 * - CBL_OPTION_CHOICES, CBL_OPTION_REGEX and CBL_OPTION_JSON_SCHEMA for texts of a given form;
 * - "Generation on demand" for a loop that asks for the next token;
 * - cbl_generate_steps() for the probabilities of tokens;
 * - cbl_session_evaluate(), cbl_session_logits() and cbl_session_sample() for a loop that chooses the
 *   tokens itself;
 * - "Saving" for prompts that are used again;
 * - "Log, progress, memory and threads of the host";
 * - "Without an operating system" for microcontrollers, where cbl_bare_start() comes first.
 *
 * These rules hold everywhere, unless a comment says otherwise:
 *
 * - Errors. A function that can fail returns a cbl_status, 0 for success. If it fails, it sets its single
 *   results (`**model`, `*count`, `*info`) to NULL, 0 or zeros, also if a handle is bad. Passing NULL for
 *   such a result is an error. Buffers and arrays are written on success only. No function aborts, exits,
 *   prints, installs a signal handler or reads the environment. A bug in the library gives CBL_PANIC.
 * - Threads. "Thread-safe" functions may be called at any time, also on the same handle. Other functions
 *   may be called by one thread at a time per handle; several calls may use a `const` handle at the same
 *   time. No function waits for a call of another thread: it returns CBL_BUSY instead.
 * - Memory. The functions that make a handle give it to the caller, who frees it with the ..._free function
 *   of its kind. Handles may be freed in any order. The library copies what it needs of all other arguments,
 *   and does not keep the pointers. The exceptions say so: log, progress, arena, pool,
 *   memory of a model.
 * - Pointers. A pointer may be NULL only if the comment says so. Otherwise NULL is an error, not a crash.
 *   Text is UTF-8 and has a length. Paths, and the texts in an array of texts, end with a zero byte.
 * - Numbers. Results are the same bits on every processor, for any number of threads, and in any
 *   floating-point environment of the caller, even if its exceptions trap. The library restores that
 *   environment with its status flags, and callbacks run in it.
 * - Structures. The caller passes the size of a structure that receives results. So an old program works
 *   with a new library, and a new program with an old library.
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
 * The interface grows, and never breaks within one CBL_ABI_VERSION. A later version may add
 * functions, status codes, options, and fields at the end of structures. It removes, renumbers and
 * moves nothing.
 */

/** The version of this interface. The name of the shared library contains this number. */
#define CBL_ABI_VERSION 0

/** The version of the library that this header belongs to: its first number. */
#define CBL_VERSION_MAJOR 0

/** Its second number. */
#define CBL_VERSION_MINOR 1

/** Its third number. */
#define CBL_VERSION_PATCH 0

/** The same version as one number, for comparisons: 1002003 is version 1.2.3. */
#define CBL_VERSION_NUMBER (((CBL_VERSION_MAJOR * 1000000) + (CBL_VERSION_MINOR * 1000)) + CBL_VERSION_PATCH)

/**
 * Returns the CBL_ABI_VERSION of the library that is loaded. If it differs from the one in this
 * header, do not call any other function.
 *
 * Thread-safe.
 */
uint32_t cbl_abi_version(void);

/**
 * Returns the version of the library that is loaded, such as "0.1.0". The text is static.
 *
 * Thread-safe.
 */
const char *cbl_version_string(void);

/**
 * Returns the CBL_VERSION_NUMBER of the library that is loaded. It may be higher than the one in
 * this header.
 *
 * Thread-safe.
 */
uint32_t cbl_version_number(void);

/**
 * Returns whether this build can tokenize text. If not, these functions return CBL_UNSUPPORTED:
 * cbl_model_tokenize(), cbl_generate(), cbl_generation_begin(), cbl_batch_generate(),
 * cbl_batch_begin(), cbl_score(), cbl_embed(), and all functions for classifiers, templates and
 * conversations.
 * Functions that take token ids work, and so do cbl_model_detokenize() and
 * cbl_model_token_bytes().
 *
 * Thread-safe.
 */
bool cbl_has_text(void);

/**
 * Returns whether this build can give generated texts a form by CBL_OPTION_CHOICES,
 * CBL_OPTION_REGEX and CBL_OPTION_JSON_SCHEMA. If not, setting one of these options returns
 * CBL_UNSUPPORTED.
 *
 * Thread-safe.
 */
bool cbl_has_constraints(void);

/**
 * Returns the name of an instruction set that this processor supports: number `index`, counted
 * from 0. The last one is the fastest. Returns NULL if there are fewer. The names are values of
 * CBL_OPTION_ISA. The text is static.
 *
 * Thread-safe.
 */
const char *cbl_isa_name(size_t index);

/* ---- Status codes -------------------------------------------------------------------------
 *
 * Every function that can fail returns a status code. After a failure all handles can still be
 * used, except after CBL_PANIC. A call that fails changes nothing, unless its comment says
 * otherwise.
 */

/**
 * The result of a call. Numbers never change and are never used again. Later versions may add
 * some, so treat an unknown number as a failure.
 */
typedef int32_t cbl_status;
enum {
  /** Success. */
  CBL_OK = 0,
  /**
   * A handle is NULL or of another kind. A handle that was freed gives this status too, but only
   * if its memory is not used again.
   */
  CBL_BAD_HANDLE = 1,
  /** A pointer is NULL or misaligned, a size is impossible, or there are no tokens. */
  CBL_BAD_ARGUMENT = 2,
  /** An option is unknown, is out of its range, or does not fit the model or the processor. */
  CBL_BAD_OPTION = 3,
  /** A text is not valid UTF-8. */
  CBL_INVALID_UTF8 = 4,
  /** The buffer is too small for the result. The call has returned the size that is needed. */
  CBL_BUFFER_TOO_SMALL = 5,
  /**
   * There is too little memory, the system refuses to lock it, or the arena is smaller than the
   * memory plan. A smaller context, a smaller chunk or an int8 cache needs less.
   */
  CBL_NO_MEMORY = 6,
  /** The operating system refused to open, map, read or write a file. */
  CBL_IO = 7,
  /** The bytes are not a model file, are damaged, or have another version of the format. */
  CBL_BAD_MODEL = 8,
  /** The mapped file was changed after it was opened. Open the model again. */
  CBL_MODEL_CHANGED = 9,
  /** A token id is not less than the size of the vocabulary. */
  CBL_BAD_TOKEN = 10,
  /** There are too few positions left for the tokens. */
  CBL_CONTEXT_FULL = 11,
  /** A rewind asks for a position that is not reached yet. */
  CBL_BAD_POSITION = 12,
  /**
   * There are no logits of a last token: nothing was evaluated since the session was made, reset
   * or rewound, or the last evaluation failed.
   */
  CBL_NO_LOGITS = 13,
  /**
   * A logit is not a finite number: the weights of the model are damaged, or the computation
   * overflows.
   */
  CBL_NON_FINITE = 14,
  /** The model file holds no tokenizer. */
  CBL_NO_TOKENIZER = 15,
  /**
   * The text cannot be tokenized, the tokenizer in the model file is damaged, or a stop string
   * is empty.
   */
  CBL_BAD_TEXT = 16,
  /** The handle is in use: by another thread, or by the call that is running the callback. */
  CBL_BUSY = 17,
  /** cbl_session_cancel(), cbl_batch_cancel() or a cbl_progress_callback stopped the call. */
  CBL_CANCELLED = 18,
  /** The system refused to start a thread. */
  CBL_NO_THREADS = 19,
  /** A saved session is damaged, or belongs to another model, cache type or version. */
  CBL_BAD_SAVED = 20,
  /** This build or platform does not have the function; see cbl_has_text(). */
  CBL_UNSUPPORTED = 21,
  /**
   * There is a bug in the library, or a thread pool of the host breaks its contract. The handle
   * of the call can only be freed now. All other handles can still be used.
   */
  CBL_PANIC = 22,
  /**
   * The handle has no generation on demand of this number, or a failure or another call on the
   * handle has ended it.
   */
  CBL_NO_GENERATION = 23,
};

/**
 * Returns what a status means, in a few words of English, for logs. Any number may be passed. The
 * text is static.
 *
 * The message of a handle or of a call says more: which file, which option, what to do next.
 *
 * Thread-safe.
 */
const char *cbl_status_text(int32_t status);

/* ---- Options ------------------------------------------------------------------------------
 *
 * One set of options serves all functions: those that open a model, make a session or generate. A
 * function uses the options that concern it, and ignores the others. Where a function takes
 * options, NULL stands for the defaults.
 *
 *     cbl_options *options;
 *     cbl_options_new(&options);
 *     cbl_options_set_int(options, CBL_OPTION_THREADS, 4);
 *     cbl_options_set_float(options, CBL_OPTION_TEMPERATURE, 0.8);
 *
 * The function that sets an option checks the value, as far as it can without a model. A set of
 * options may be changed or freed as soon as the call that takes it has returned.
 */

/**
 * The keys of options. Numbers never change and are never used again. The comment of a key begins
 * with the type and the range of its value, and then names what it concerns.
 */
typedef int32_t cbl_option;
enum {
  /** int. Opening: how the file is opened, a cbl_access. Default: CBL_ACCESS_MAP. */
  CBL_OPTION_ACCESS = 1,
  /**
   * int, 0 or 1. Opening: 1 reads the whole file and checks every checksum; 0, the default,
   * checks only the header. With either value, a damaged file can do no more harm than give
   * wrong text.
   */
  CBL_OPTION_VERIFY = 2,
  /**
   * int. Session: the number of positions of the cache. 0, the default, takes
   * cbl_model_info.context, or fewer if the cache would take more than 64 MiB and more than four
   * times the size of the file.
   */
  CBL_OPTION_CONTEXT = 3,
  /** int. Session: the type of the cache, a cbl_cache. Default: CBL_CACHE_F16. */
  CBL_OPTION_CACHE = 4,
  /**
   * int, 1 to 64. Session: the number of threads that share the work, the calling thread
   * included. 1, the default, starts no thread.
   */
  CBL_OPTION_THREADS = 5,
  /**
   * int, from 1. Session: the number of tokens of a prompt that are evaluated at once. A larger
   * number is faster and takes more memory. Default: 64.
   */
  CBL_OPTION_CHUNK = 6,
  /**
   * int, 0 or 1. Session: 1 computes the logits of every token, for cbl_session_evaluate_each().
   * Default: 0.
   */
  CBL_OPTION_ALL_LOGITS = 7,
  /**
   * string. Session: the name of the instruction set to use; see cbl_isa_name(). Default: the
   * fastest one.
   */
  CBL_OPTION_ISA = 8,
  /** int, from 0. Generation: the largest number of tokens to generate. Default: 128. */
  CBL_OPTION_MAX_TOKENS = 9,
  /**
   * float, 0 to 100. Generation: 0, the default, chooses the most probable token; 1 draws from
   * the model's own distribution; a value below 1 makes probable tokens more probable.
   */
  CBL_OPTION_TEMPERATURE = 10,
  /**
   * int, from 0. Generation: draws only from this number of most probable tokens. 0, the
   * default, draws from all tokens.
   */
  CBL_OPTION_TOP_K = 11,
  /**
   * float, more than 0, at most 1. Generation: draws only from the most probable tokens whose
   * probabilities add up to this value. 1, the default, draws from all tokens.
   */
  CBL_OPTION_TOP_P = 12,
  /**
   * float, 0 to 1. Generation: draws only from tokens whose probability is at least this
   * fraction of the highest probability. 0, the default, draws from all tokens.
   */
  CBL_OPTION_MIN_P = 13,
  /**
   * float, 0.01 to 100. Generation: a value over 1 makes recent tokens less probable. 1, the
   * default, changes nothing.
   */
  CBL_OPTION_REPETITION_PENALTY = 14,
  /**
   * int, from 0. Generation: the number of last tokens that count as recent, those of the prompt
   * included. 0 counts all tokens. Default: 64.
   */
  CBL_OPTION_REPETITION_WINDOW = 15,
  /**
   * int, all 64 bits count. Generation: the same seed draws the same tokens on every machine.
   * Default: 0.
   */
  CBL_OPTION_SEED = 16,
  /**
   * int, 0 or 1. Generation: 1 goes on after the end-of-text token, and after all other tokens that
   * end an answer. Default: 0.
   */
  CBL_OPTION_IGNORE_END_OF_TEXT = 17,
  /**
   * int, 0 or 1. Tokenizing: 1 turns the name of a special token in the text, such as
   * <|endoftext|>, into that token. 0, the default, reads it as plain text, so that a text from
   * outside cannot contain special tokens.
   */
  CBL_OPTION_PARSE_SPECIAL = 18,
  /**
   * int, 0 to 15. Session: the largest number of tokens that a generation guesses and evaluates
   * together with the next token. It guesses what followed the last tokens when they occurred
   * before. A right guess saves a pass over the weights. The session guesses only where this
   * saves time, and guesses change no result. A value `n` takes memory for `n` more rows of
   * logits. Default: 4.
   */
  CBL_OPTION_DRAFT = 19,
  /**
   * int. Embedding: how the vectors of the tokens become one vector, a cbl_pooling. Default:
   * CBL_POOLING_MEAN.
   */
  CBL_OPTION_POOLING = 20,
  /**
   * string. Classification: the text that the model reads, with `{text}` and `{label}` once each
   * and in this order. The characters after `{label}`, up to the end of the line, mark the end
   * of the label. Default: "Utterance: {text}\nIntent: {label}\n".
   */
  CBL_OPTION_TEMPLATE = 21,
  /**
   * int. Classification: how the length of a label counts, a cbl_normalization. Default:
   * CBL_NORMALIZATION_SUM.
   */
  CBL_OPTION_NORMALIZATION = 22,
  /**
   * int. Classification: what is subtracted from the score of a label, a cbl_calibration.
   * Default: CBL_CALIBRATION_NONE.
   */
  CBL_OPTION_CALIBRATION = 23,
  /**
   * string. Generation: the text is one of these choices, each of which stands on a line of its
   * own. The text may begin with a space. An empty string, the default, allows any text.
   *
   * This option, CBL_OPTION_REGEX and CBL_OPTION_JSON_SCHEMA need a build with
   * cbl_has_constraints(). Setting one of them removes the other two. A value that makes no
   * sense is refused when it is set. A stop string, CBL_OPTION_MAX_TOKENS or a full context may
   * still cut the text. In a batch, every text has the form.
   *
   * The first generation with such an option takes some tens of milliseconds to prepare the
   * vocabulary. Setting the option and preparing the vocabulary start a thread for a short time;
   * if the system refuses the thread, they give CBL_NO_THREADS.
   */
  CBL_OPTION_CHOICES = 24,
  /**
   * string. Generation: the text matches this regular expression from beginning to end. No
   * anchors are needed: ^ at the beginning and $ at the end change nothing. Anchors elsewhere,
   * look-around and back-references are refused. An empty string, the default, allows any text.
   */
  CBL_OPTION_REGEX = 25,
  /**
   * string. Generation: the text is JSON that follows this JSON schema (draft 2020-12), in one
   * line. The text may begin with a space. A schema that uses what the library does not support
   * is refused. A number has at most 15 digits before the point, 15 after it and 2 in its
   * exponent, unless the schema leaves no choice. Bounds and values beyond 2^53 are refused. An
   * empty string, the default, allows any text.
   */
  CBL_OPTION_JSON_SCHEMA = 26,
  /**
   * int, from 0. Templates: the largest number of tokens in the result of each part, whatever
   * number the template asks for. 0, the default, takes the number that the template asks for.
   * That number is limited if the template comes from a model file; see cbl_template_named().
   */
  CBL_OPTION_TEMPLATE_TOKENS = 27,
  /**
   * string. Conversations: the day that a chat template may write, such as "2025-01-31". An empty
   * string, the default, is today by the system's clock, in UTC.
   */
  CBL_OPTION_DATE = 28,
  /**
   * int. Conversations: 1 asks a model that can think before it answers to do so, 0 not to, if
   * its chat template knows that. -1, the default, leaves it to the template.
   */
  CBL_OPTION_THINKING = 29,
  /**
   * int, 0 or 1. cbl_model_tokenize(): 1 if the text begins what the model reads. The token that the
   * model wants before every text, if it wants one, is then put there, unless the text begins with it.
   * The functions that take a text and a session need no such option: they put it before a text that
   * begins an empty session. Default: 0.
   */
  CBL_OPTION_BEGIN_OF_TEXT = 30,
};

/** Values of CBL_OPTION_ACCESS. */
typedef int32_t cbl_access;
enum {
  /**
   * Map the file. Opening takes milliseconds. The pages are shared with other processes, and the
   * system can evict them. To replace the file, rename another file over it. If the file is
   * changed in place, calls that need it give CBL_MODEL_CHANGED. If it is truncated during a
   * call, the system raises SIGBUS.
   */
  CBL_ACCESS_MAP = 0,
  /** Read the file into memory. Later changes to the file do not matter. */
  CBL_ACCESS_READ = 1,
};

/** Values of CBL_OPTION_CACHE. */
typedef int32_t cbl_cache;
enum {
  /** Keys and values as float16. */
  CBL_CACHE_F16 = 0,
  /** Keys and values as int8, in about half the memory. */
  CBL_CACHE_INT8 = 1,
};

/** A set of options. */
typedef struct cbl_options cbl_options;

/**
 * Makes a set of options with their defaults. `*options` is NULL if that fails.
 *
 * Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_NO_MEMORY.
 */
cbl_status cbl_options_new(cbl_options **options);

/**
 * Frees a set of options; NULL is allowed. Models and sessions that were made with it stay usable.
 *
 * Errors: CBL_BAD_HANDLE; CBL_BUSY, which frees nothing.
 */
cbl_status cbl_options_free(cbl_options *options);

/**
 * Returns why the last failed call that was to change these options failed. The text is English,
 * never NULL, and valid until the next call with the options. After CBL_BUSY, the thread that got
 * it reads that the options are in use; the message for other threads does not change.
 *
 * One thread at a time.
 */
const char *cbl_options_error(cbl_options *options);

/**
 * Sets an option of type int. `key` is a cbl_option.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_UNSUPPORTED, CBL_BUSY.
 */
cbl_status cbl_options_set_int(cbl_options *options, int32_t key, int64_t value);

/**
 * Sets an option of type float. `key` is a cbl_option.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_BUSY.
 */
cbl_status cbl_options_set_float(cbl_options *options, int32_t key, double value);

/**
 * Sets an option of type string to the `length` bytes at `value`. `key` is a cbl_option.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8,
 * CBL_BAD_OPTION, CBL_NO_THREADS, CBL_UNSUPPORTED, CBL_BUSY.
 */
cbl_status cbl_options_set_string(cbl_options *options,
                                  int32_t key,
                                  const char *value,
                                  size_t length);

/**
 * Adds a stop string: `length` bytes of UTF-8, which are copied. A generated text ends before the
 * first stop string that appears in it, even if the string begins or ends inside a token. No part
 * of a stop string is passed on.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION
 * if the string is empty, CBL_NO_MEMORY, CBL_BUSY.
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
 * Adds `bias`, -1000 to 1000, to the logit of a token before penalty and temperature. -100 makes
 * the token almost impossible, 100 almost certain, and 0 removes its bias. If the model does not
 * have the token, a generation or a choice fails with CBL_BAD_OPTION.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_NO_MEMORY, CBL_BUSY.
 */
cbl_status cbl_options_set_logit_bias(cbl_options *options,
                                      uint32_t token,
                                      double bias);

/**
 * Removes all biases that cbl_options_set_logit_bias() has set.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_options_clear_logit_biases(cbl_options *options);

/* ---- Models -------------------------------------------------------------------------------
 *
 * A model is opened from a file, a file descriptor or memory. It never changes. Any number of
 * sessions and threads may share it. A session keeps alive what it needs of the model, so the model
 * may be freed first.
 *
 * The file of a mapped model may be removed, or replaced by renaming another file over it. If a
 * program writes to the file or truncates it, the functions that need the file return
 * CBL_MODEL_CHANGED from then on. Functions that do not list this status work from memory.
 *
 * Some functions take `message` and `message_size`: a buffer of `message_size` bytes, to which a
 * call that fails writes why. `message` may be NULL. 256 bytes are enough for most messages. The
 * text ends with a zero byte, is cut if it is too long, and is empty after a success.
 */

/** An open model. */
typedef struct cbl_model cbl_model;

/** Facts about a model. Later versions may add fields at the end. */
typedef struct {
  /** Name of the family of networks, such as "gpt2" or "llama". Static. */
  const char *architecture;
  /**
   * Hash of the checkpoint that the model was made from: the name of the algorithm, a colon, and
   * the hash. "" if the file does not contain it. Valid as long as the model.
   */
  const char *digest;
  /** Size of the model file in bytes. */
  uint64_t file_bytes;
  /** Number of weights. */
  uint64_t parameters;
  /** Bits per weight in the matrices, scales included. */
  double bits_per_weight;
  /** Number of tokens `n`. Token ids are 0 to `n` - 1, and there are `n` logits. */
  uint32_t vocabulary;
  /**
   * Number of positions that the model was trained on. By default a session has at most this
   * number. Only a model that measures distances by ALiBi, such as "btlm", can have more; see
   * CBL_OPTION_CONTEXT.
   */
  uint32_t context;
  /** Number of elements of an embedding. */
  uint32_t embedding;
  /** Number of layers. */
  uint32_t layers;
  /** Number of attention heads per layer. */
  uint32_t heads;
  /** The token that ends a text, or -1. */
  int32_t end_of_text;
  /** Whether the file holds a tokenizer. */
  bool has_tokenizer;
  /** Whether the weights lie in a mapped file, and so take no private memory. */
  bool is_mapped;
} cbl_model_info;

/** The memory that a session takes. Later versions may add fields at the end. */
typedef struct {
  /**
   * Size of the model file. If the file is mapped, other processes share this memory, and the
   * system can evict it. It is not part of the total.
   */
  uint64_t weights_bytes;
  /**
   * The cache of keys and values. A layer whose queries see a window of positions has a cache for the
   * window, not for the context.
   */
  uint64_t cache_bytes;
  /** Activations, logits, buffers of the sampler and buffers of each thread. */
  uint64_t scratch_bytes;
  /** What the session allocates, or takes from the arena: `cache_bytes` + `scratch_bytes`. */
  uint64_t total_bytes;
} cbl_memory_plan;

/**
 * Opens the model file at `path`. The path ends with a zero byte. On Unix it is any bytes,
 * elsewhere UTF-8. `options` may be NULL. `*model` is NULL if that fails.
 *
 * By default the file is mapped, and only its header is read. CBL_OPTION_ACCESS and
 * CBL_OPTION_VERIFY can change that. If opening then takes long, cbl_options_set_progress() helps.
 *
 * Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_IO, CBL_BAD_MODEL, CBL_NO_MEMORY, CBL_CANCELLED,
 * CBL_BUSY; CBL_MODEL_CHANGED if the file is changed during the call; CBL_UNSUPPORTED without an
 * operating system.
 */
cbl_status cbl_model_open(const char *path,
                          const cbl_options *options,
                          cbl_model **model,
                          char *message,
                          size_t message_size);

/**
 * Opens a model as cbl_model_open() does, from the file descriptor of a regular file. The
 * descriptor and its offset stay the caller's, who may close it after the call. On Unix only.
 *
 * Thread-safe. Errors: those of cbl_model_open(), CBL_UNSUPPORTED.
 */
cbl_status cbl_model_open_fd(int32_t fd,
                             const cbl_options *options,
                             cbl_model **model,
                             char *message,
                             size_t message_size);

/**
 * Opens a model as cbl_model_open_fd() does, from a part of the file: `length` bytes from byte
 * `offset` on. The descriptor's own offset does not matter. This is for a model inside a package,
 * such as a part of a file that AAsset_openFileDescriptor64() gives on Android.
 *
 * To be mapped, the part must be stored uncompressed and begin at a multiple of 64 bytes. zipalign
 * and most packagers see to that. If the part does not begin there, the call returns
 * CBL_BAD_ARGUMENT, and CBL_ACCESS_READ can open it. A mapped model counts as changed if any part
 * of the file was changed.
 *
 * Thread-safe. Errors: those of cbl_model_open_fd(); CBL_BAD_ARGUMENT also if the file has no such
 * part.
 */
cbl_status cbl_model_open_fd_range(int32_t fd,
                                   uint64_t offset,
                                   uint64_t length,
                                   const cbl_options *options,
                                   cbl_model **model,
                                   char *message,
                                   size_t message_size);

/**
 * Opens a model as cbl_model_open() does, from the `size` bytes at `data`, such as flash memory or
 * a buffer. `data` begins on a 64-byte boundary. The bytes are not copied. They must stay valid
 * and unchanged until the model and all its sessions and batches are freed.
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
 * Frees a model; NULL is allowed. Its sessions stay usable, and keep what they need of it.
 *
 * No other call may be using the handle. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_model_free(cbl_model *model);

/**
 * Writes facts about a model to `*info`. `size` is `sizeof *info`.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT.
 */
cbl_status cbl_model_get_info(const cbl_model *model, cbl_model_info *info, size_t size);

/**
 * Writes to `*plan` what memory a session with these options takes, to the byte. Nothing is
 * allocated. `options` may be NULL. `size` is `sizeof *plan`.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_MEMORY if the
 * number of bytes is too large for a size_t, CBL_BUSY.
 */
cbl_status cbl_model_plan(const cbl_model *model,
                          const cbl_options *options,
                          cbl_memory_plan *plan,
                          size_t size,
                          char *message,
                          size_t message_size);

/**
 * Reads the whole model and checks every checksum. Checksums find accidents, not forgeries.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_MODEL with a message that names a damaged tensor,
 * CBL_MODEL_CHANGED.
 */
cbl_status cbl_model_verify(const cbl_model *model,
                            char *message,
                            size_t message_size);

/**
 * Brings the model's pages into memory and keeps them there as long as the model or a session of
 * it lives. So no evaluation waits for the disk. The call takes the time to read the pages that
 * are not in memory yet. Evaluations may run at the same time. If the system refuses, the message
 * names the number of bytes and the limit (RLIMIT_MEMLOCK), and the model can be used as before.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_MODEL_CHANGED.
 */
cbl_status cbl_model_lock_memory(const cbl_model *model,
                                 char *message,
                                 size_t message_size);

/**
 * Copies weights to `bytes` bytes at `memory`, which begins on a 64-byte boundary: those weights that
 * save a token most bytes of the model. From then on its sessions and batches read them there. This
 * makes them faster if the model lies in slow memory, such as flash that is read over a few wires.
 * Results are the same bits. `*saved` is the number of bytes of the model that a token no longer
 * reads; 0 on failure. `cerebellum plan --flash-mb-s N --ram BYTES` shows it in advance.
 *
 * Nobody else may use the memory until the model and all its sessions and batches are freed. A model
 * has one such copy. If any of the memory belongs to a session or a model, if the memory has no room
 * for any tensor, or if the model has a copy already, the call returns CBL_BAD_ARGUMENT or
 * CBL_BAD_OPTION, and the message says what is wrong.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_MEMORY,
 * CBL_MODEL_CHANGED.
 */
cbl_status cbl_model_copy_weights(const cbl_model *model,
                                  void *memory,
                                  size_t bytes,
                                  size_t *saved,
                                  char *message,
                                  size_t message_size);

/* ---- Sessions -----------------------------------------------------------------------------
 *
 * A session is one sequence of tokens, with its cache of keys and values and all the buffers that
 * it needs. They are allocated when the session is made. Evaluating, sampling and generating tokens
 * allocate nothing.
 *
 * A session is for one thread at a time. A call on a session that is in use, by another thread or
 * by the call that is running the callback, returns CBL_BUSY and does nothing. Functions that take
 * a `const cbl_session *` may be called at any time from any thread.
 */

/** Why a generation ended. */
typedef int32_t cbl_stop_reason;
enum {
  /** It has not ended, it has failed, or there was none. */
  CBL_STOP_NONE = 0,
  /** The model chose the end-of-text token. */
  CBL_STOP_END_OF_TEXT = 1,
  /** The text has as many tokens as CBL_OPTION_MAX_TOKENS allows. */
  CBL_STOP_MAX_TOKENS = 2,
  /** A stop string appeared. */
  CBL_STOP_STRING = 3,
  /** The session has no position left. */
  CBL_STOP_CONTEXT_FULL = 4,
  /**
   * The callback returned false, or a call such as cbl_session_cancel() or cbl_generation_end()
   * ended the generation.
   */
  CBL_STOP_CANCELLED = 5,
  /**
   * The text has the form that CBL_OPTION_CHOICES, CBL_OPTION_REGEX or CBL_OPTION_JSON_SCHEMA
   * asks for.
   */
  CBL_STOP_COMPLETE = 6,
  /** CBL_OPTION_MAX_TOKENS or the session's positions ran out before the text had that form. */
  CBL_STOP_INCOMPLETE = 7,
};

/** A sequence of tokens, and what is needed to continue it. */
typedef struct cbl_session cbl_session;

/**
 * Receives the logits of the token at `position`: `count` floats, valid until the callback
 * returns. Return false to receive no more; the evaluation goes on. The callback runs on the
 * thread that called the library, in that thread's floating-point environment. It must not throw
 * or longjmp.
 */
typedef bool (*cbl_logits_callback)(void *user,
                                    size_t position,
                                    const float *logits,
                                    size_t count);

/** What a session has done. Later versions may add fields at the end. */
typedef struct {
  /** Name of the instruction set in use. Static. */
  const char *isa;
  /** Number of positions that the session has. */
  uint64_t context;
  /** Number of positions in use. */
  uint64_t position;
  /** Number of threads that share the work. */
  uint64_t threads;
  /** Number of tokens evaluated since the session was made. */
  uint64_t evaluated_tokens;
  /** Time to evaluate these tokens, sampling included. */
  double evaluation_seconds;
  /** Number of tokens in the prompt of the last generation. */
  uint64_t prompt_tokens;
  /** Time to evaluate that prompt and choose the first token. */
  double prompt_seconds;
  /** Number of tokens that the last generation chose. */
  uint64_t generated_tokens;
  /** Time from the first to the last of these tokens. */
  double generation_seconds;
  /** Why the last generation ended: a cbl_stop_reason. CBL_STOP_NONE while one is running. */
  int32_t stop_reason;
  /** Always 0. */
  int32_t reserved;
  /** Number of tokens that were guessed and evaluated (CBL_OPTION_DRAFT). */
  uint64_t guessed_tokens;
  /** Number of guesses that were right. Each saved a pass over the weights. */
  uint64_t right_guesses;
  /**
   * The last token of the last generation, which is chosen but not evaluated. Pass it to
   * cbl_session_evaluate() if the session is to hold the whole generated text. -1 after the
   * end-of-text token, and if there is no such token.
   */
  int64_t pending_token;
} cbl_session_stats;

/**
 * Makes a session of a model. `options` may be NULL. `*session` is NULL if that fails.
 *
 * The call takes all the memory that the session will use, as much as cbl_model_plan() says. It
 * starts threads if the options ask for more than one.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, also if the arena belongs to another
 * session; CBL_BAD_OPTION, CBL_NO_MEMORY, CBL_NO_THREADS, CBL_BUSY.
 */
cbl_status cbl_session_new(const cbl_model *model,
                           const cbl_options *options,
                           cbl_session **session,
                           char *message,
                           size_t message_size);

/**
 * Makes another session that holds the same tokens. Afterwards the two sessions are independent.
 * If `options` is NULL, the fork is made with the options of the first session, but not in its
 * arena. Otherwise the options must give the same type of cache, and a context that holds the
 * tokens. `*fork` is NULL if that fails.
 *
 * One thread at a time. Errors: those of cbl_session_new(); CBL_BAD_SAVED if the type of the cache
 * differs; CBL_CONTEXT_FULL; CBL_MODEL_CHANGED.
 */
cbl_status cbl_session_fork(cbl_session *session,
                            const cbl_options *options,
                            cbl_session **fork);

/**
 * Brings a session's memory into RAM and keeps it there as long as the session lives: all the
 * bytes of cbl_model_plan(), also those of the cache that are not in use yet. For the weights, see
 * cbl_model_lock_memory(). If the system refuses, the session can be used as before.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_BUSY;
 * CBL_PANIC.
 */
cbl_status cbl_session_lock_memory(cbl_session *session);

/**
 * Frees a session; NULL is allowed.
 *
 * No other call may be using the handle. This is checked: while a call on the session runs, on
 * another thread or around this callback, the function returns CBL_BUSY and frees nothing. Errors:
 * CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_session_free(cbl_session *session);

/**
 * Returns why the last failed call on this session failed. The text is English, never NULL, and
 * valid until the next call on the session. It is for logs and developers; a program should branch
 * on the status. After CBL_BUSY, the thread that got it reads that the session is in use; the
 * message for other threads does not change.
 *
 * One thread at a time.
 */
const char *cbl_session_error(cbl_session *session);

/**
 * Forgets all tokens. Takes no time.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_reset(cbl_session *session);

/**
 * Forgets the tokens from `position` on. `position` is at most cbl_session_position(). Takes no
 * time. If layers of the model see only a window of the last tokens, the next evaluation may have
 * to evaluate some of the remaining tokens again.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_POSITION, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_rewind(cbl_session *session,
                              size_t position);

/**
 * Returns the number of tokens in the session, which is the position of the next token. During a
 * call the number is the one before that call. 0 for a bad handle.
 *
 * Thread-safe.
 */
size_t cbl_session_position(const cbl_session *session);

/**
 * Finds the tokens in the session: `*tokens` points to `*count` ids, valid until the next call on
 * the session. NULL and 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_tokens(cbl_session *session,
                              const uint32_t **tokens,
                              size_t *count);

/**
 * Appends `count` tokens and evaluates them. Afterwards the last token has logits, which can be
 * read or sampled.
 *
 * One thread at a time. On failure the session holds the tokens that it held before, and has no
 * logits. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if `count` is 0, CBL_BAD_TOKEN,
 * CBL_CONTEXT_FULL, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_evaluate(cbl_session *session, const uint32_t *tokens, size_t count);

/**
 * Appends and evaluates tokens as cbl_session_evaluate() does, and calls `callback` with the
 * logits of every token, in order. This is what a program needs to score a text. The session must
 * be made with CBL_OPTION_ALL_LOGITS.
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
 * Finds the logits of the last token: `*logits` points to `*count` floats, one for each token of
 * the vocabulary. They are valid until the next call that evaluates, generates, resets, rewinds,
 * restores or frees. NULL and 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY,
 * CBL_PANIC.
 */
cbl_status cbl_session_logits(cbl_session *session,
                              const float **logits,
                              size_t *count);

/**
 * Chooses the next token from the logits of the last token, by the options for generation. The
 * session does not change; to go on, evaluate the chosen token. `options` may be NULL. `*token` is
 * 0 on failure.
 *
 * The choice depends on the logits, the options, the session's tokens (for the repetition penalty)
 * and the position (which makes the random number, together with the seed), and on nothing else.
 *
 * CBL_OPTION_CHOICES, CBL_OPTION_REGEX and CBL_OPTION_JSON_SCHEMA concern a whole text. If one of
 * them is set, a single choice fails with CBL_BAD_OPTION.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_LOGITS,
 * CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_sample(cbl_session *session,
                              const cbl_options *options,
                              uint32_t *token);

/**
 * Stops the call that evaluates or generates on the session. The call stops within a fraction of a
 * layer's time; while it tokenizes or cuts a text, within a few kilobytes of it. An evaluation
 * then returns CBL_CANCELLED. A generation returns CBL_OK and CBL_STOP_CANCELLED. Only the
 * preparation of a constraint is finished first, which takes a second for 100 000 choices.
 *
 * The call that is running uses up the request, even if the request comes too late to stop it. If
 * no call is running, the request stops the next one that evaluates, generates, scores,
 * classifies, embeds or applies a template. cbl_session_clear_cancel() takes the request back.
 *
 * Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_session_cancel(const cbl_session *session);

/**
 * Takes back a request of cbl_session_cancel() that no call has used up yet.
 *
 * Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_session_clear_cancel(const cbl_session *session);

/**
 * Returns a word for a cbl_stop_reason, such as "max_tokens", for logs. Any number may be passed.
 * The text is static.
 *
 * Thread-safe.
 */
const char *cbl_stop_reason_name(int32_t reason);

/**
 * Writes to `*stats` what a session has done. `size` is `sizeof *stats`.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_get_stats(cbl_session *session, cbl_session_stats *stats, size_t size);

/* ---- Generation ---------------------------------------------------------------------------
 *
 * A generation evaluates a prompt after the tokens that the session already holds. Then it chooses
 * a token, passes it on and evaluates it, again and again, until there is a reason to stop. For a
 * conversation, generate again on the same session. To start over, call cbl_session_reset() first.
 *
 * Afterwards the session holds the tokens that it held before, the prompt, and the generated tokens
 * without the last one. That token is chosen and passed on, but not evaluated. A stop string that
 * appeared is in the session, although it was not passed on. If the evaluation of the prompt was
 * cancelled, none of the prompt is in the session.
 *
 * The last token is cbl_session_stats.pending_token. If the next prompt is to follow the whole
 * answer, pass this token to cbl_session_evaluate() first. To go on with a text that ended by
 * CBL_STOP_MAX_TOKENS, pass the token alone to cbl_generate_from_tokens(). To forget an exchange,
 * note cbl_session_position() before it, and go back to that position with cbl_session_rewind().
 */

/**
 * Receives a piece of text: `length` bytes of whole UTF-8 characters, without a zero byte at the
 * end, valid until the callback returns. Return false to stop. The callback runs on the thread
 * that called the library, in that thread's floating-point environment. `user` is the pointer that
 * was given with the callback, and may be NULL.
 *
 * During the callback, calls on the session return CBL_BUSY, except for functions that take a
 * `const cbl_session *`, such as cbl_session_cancel() and cbl_session_position(). The callback
 * must not throw or longjmp.
 */
typedef bool (*cbl_text_callback)(void *user, const char *text, size_t length);

/** Receives a token id. Return false to stop. Otherwise as cbl_text_callback. */
typedef bool (*cbl_token_callback)(void *user, uint32_t token);

/**
 * A token of a generation, and the text that has become certain with it. Later versions may add
 * fields at the end.
 */
typedef struct {
  /** The token, or -1 if the step has none: it is text that was held back, after the last token. */
  int64_t token;
  /** Whole characters, without a zero byte at the end. Often empty. */
  const char *text;
  /** Length of the text in bytes. */
  size_t length;
  /**
   * The logits that the token was chosen from, one for each token of the vocabulary, before bias
   * and penalty. cbl_top_tokens() and cbl_log_probabilities() turn them into probabilities. NULL
   * if the step has no token, or if a constraint left no choice.
   */
  const float *logits;
  /** Number of logits. */
  size_t logits_count;
} cbl_step;

/**
 * Receives a step of a generation. The pointers in it are valid until the callback returns. Return
 * false to stop. Otherwise as cbl_text_callback.
 */
typedef bool (*cbl_step_callback)(void *user, const cbl_step *step);

/**
 * Continues a text: `length` bytes of UTF-8 at `prompt`, tokenized with the model's tokenizer. An
 * empty prompt stands for the end-of-text token, and so starts a new text. The callback receives
 * the generated text as soon as it is certain: whole characters, and nothing that may be the
 * beginning of a stop string.
 *
 * `options` may be NULL: then at most 128 tokens are generated, each the most probable one.
 * `reason` may be NULL; otherwise it receives why the generation ended.
 *
 * One thread at a time. On failure the session may hold the prompt and the tokens that were passed
 * on; see cbl_session_position(). Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_INVALID_UTF8;
 * CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL if the prompt does not fit; CBL_BAD_OPTION if
 * the form that the text must have is too complex, if no token of the model continues it, or if a
 * bias is for a token that the model does not have; CBL_NO_THREADS if such a form cannot be
 * prepared; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY;
 * CBL_PANIC.
 */
cbl_status cbl_generate(cbl_session *session,
                        const cbl_options *options,
                        const char *prompt,
                        size_t length,
                        cbl_text_callback callback,
                        void *user,
                        cbl_stop_reason *reason);

/**
 * Continues a text as cbl_generate() does, from a prompt of `count` token ids. If `count` is 0, a
 * new text starts. Works in a build that cannot tokenize.
 *
 * One thread at a time. Errors: those of cbl_generate(), CBL_MODEL_CHANGED among them;
 * CBL_BAD_TOKEN.
 */
cbl_status cbl_generate_from_tokens(cbl_session *session,
                                    const cbl_options *options,
                                    const uint32_t *prompt,
                                    size_t count,
                                    cbl_text_callback callback,
                                    void *user,
                                    cbl_stop_reason *reason);

/**
 * Continues a prompt of `count` token ids, and passes token ids to the callback. If `count` is 0,
 * a new text starts. The model needs no tokenizer. Stop strings are ignored. The end-of-text token
 * is not passed on.
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
 * Continues a text as cbl_generate_from_tokens() does. The callback receives every token, the text
 * that has become certain with it, and the logits that it was chosen from.
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
 * The same generation for a loop of your own: the library works only while you ask for the next
 * token. Stop strings, whole characters, constraints and cbl_session_cancel() work as in
 * "Generation".
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
 * A generation is a number. There is nothing to free, and a session has one generation at a time.
 * These functions do not disturb it: cbl_session_tokens(), cbl_session_logits(),
 * cbl_session_sample(), cbl_session_get_stats(), cbl_session_fork() (the fork has no generation),
 * cbl_session_save(), cbl_session_save_file(), cbl_session_lock_memory(), and all that take a
 * `const cbl_session *`. Every other call on the session ends the generation, also a call that
 * fails, unless it fails with CBL_BUSY. cbl_generation_next() then returns CBL_NO_GENERATION.
 */

/**
 * Begins to continue a text, as cbl_generate() does. Nothing is evaluated yet: the first
 * cbl_generation_next() evaluates the prompt. `*generation` is 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8,
 * CBL_NO_TOKENIZER, CBL_BAD_TEXT, CBL_CONTEXT_FULL if the prompt does not fit, CBL_BAD_OPTION,
 * CBL_MODEL_CHANGED, CBL_CANCELLED if a request came before the prompt was tokenized,
 * CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_generation_begin(cbl_session *session,
                                const cbl_options *options,
                                const char *prompt,
                                size_t length,
                                uint64_t *generation);

/**
 * Begins a generation as cbl_generation_begin() does, from a prompt of `count` token ids. If
 * `count` is 0, a new text starts. Works in a build that cannot tokenize. If the model file holds
 * no tokenizer, steps have no text, and options with stop strings give CBL_NO_TOKENIZER.
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
 * Makes the next step of a generation: evaluates the tokens that are not evaluated yet, and
 * chooses the next one. `*step` receives that token, and the text that has become certain with it,
 * which is often empty. `size` is `sizeof *step`. The pointers in the step are valid until the
 * next call on the session.
 *
 * While the generation goes on, `*reason` is CBL_STOP_NONE. When it has ended, `*reason` says why,
 * and the step has no token and no text; further calls give the same. If cbl_session_cancel() was
 * called since the last step, the generation ends at once. Allocates nothing, unless there is a
 * constraint.
 *
 * One thread at a time. A failure ends the generation, and the session holds the tokens that were
 * evaluated before. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_GENERATION, CBL_BAD_OPTION if
 * a constraint fails, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_NO_MEMORY, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_generation_next(cbl_session *session,
                               uint64_t generation,
                               cbl_step *step,
                               size_t size,
                               cbl_stop_reason *reason);

/**
 * Ends a generation, complete or not. Takes back a request of cbl_session_cancel(), so that it
 * does not stop the next call. `reason` may be NULL; otherwise it receives why the generation
 * ended, which is CBL_STOP_CANCELLED if it was not complete. If the generation has failed or is
 * not the session's, the call does nothing, succeeds, and gives CBL_STOP_NONE.
 *
 * The call is not needed if the session is not used any more, or if another generation begins on
 * it. For what the session holds afterwards, see "Generation"; for the figures, cbl_session_stats.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_generation_end(cbl_session *session,
                              uint64_t generation,
                              cbl_stop_reason *reason);

/* ---- Text ---------------------------------------------------------------------------------
 *
 * These functions turn text into token ids and back, with the tokenizer in the model file. If the
 * file is mapped, the first use copies the tokenizer's tables: about 1 MB for 50 000 tokens.
 */

/**
 * Turns `length` bytes of UTF-8 into token ids. `*count` receives the number of ids. `tokens` has
 * room for `capacity` ids, and receives them if they all fit. A capacity of 3 * `length` + 2 is
 * always enough, and `length` + 2 unless the tokenizer normalizes texts. A capacity of 0 only asks for the number, and then gives CBL_BUFFER_TOO_SMALL. `options`
 * may be NULL; only CBL_OPTION_PARSE_SPECIAL and CBL_OPTION_BEGIN_OF_TEXT are used. Set the latter
 * for a text whose tokens are to begin a session.
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
 * Turns `count` token ids into the bytes that they stand for. `*length` receives the number of
 * bytes. `text` has room for `capacity` bytes, and receives them if they all fit, without a zero
 * byte at the end. A capacity of 0 only asks for the number, and then gives CBL_BUFFER_TOO_SMALL.
 * A token may be a part of a character, so the bytes may begin or end inside a UTF-8 character.
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
 * Finds the bytes that one token stands for: `*bytes` points to `*length` bytes, without a zero
 * byte at the end. They are valid as long as the model, whatever happens to its file. NULL and 0
 * on failure, and for a token that stands for nothing.
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
 * These functions compute how probable tokens and given continuations are, and the embedding of a
 * text, which is a vector: similar texts have similar vectors. They generate nothing.
 */

/** Values of CBL_OPTION_POOLING: how the hidden states of a text's tokens become one embedding. */
typedef int32_t cbl_pooling;
enum {
  /** The mean of the hidden states. */
  CBL_POOLING_MEAN = 0,
  /** The hidden state of the last token, which depends on all tokens before it. */
  CBL_POOLING_LAST = 1,
};

/**
 * Computes how probable `token_count` tokens are by the `count` logits at `logits`. The logits may
 * come from a session, a batch or a callback. `log_probabilities` has room for `token_count`
 * results. Result `i` is the natural logarithm of the probability of `tokens[i]`, before
 * temperature, bias and penalty.
 *
 * Thread-safe. Errors: CBL_BAD_ARGUMENT, also if `count` is 0; CBL_BAD_TOKEN if a token is not
 * less than `count`.
 */
cbl_status cbl_log_probabilities(const float *logits,
                                 size_t count,
                                 const uint32_t *tokens,
                                 size_t token_count,
                                 double *log_probabilities);

/**
 * Finds the `capacity` most probable tokens by the `count` logits at `logits`. The logits may come
 * from a session, a batch or a callback. `tokens` has room for `capacity` ids and receives the
 * most probable token first; of equally probable tokens, the one with the lower id comes first.
 * `log_probabilities` may be NULL, or has room for `capacity` results and receives the natural
 * logarithm of each token's probability. `*found` receives the number of tokens found: `capacity`,
 * or `count` if that is less.
 *
 * Thread-safe. Takes 4 bytes per logit from the heap during the call. Errors: CBL_BAD_ARGUMENT,
 * also if `count` is 0; CBL_NO_MEMORY.
 */
cbl_status cbl_top_tokens(const float *logits,
                          size_t count,
                          uint32_t *tokens,
                          double *log_probabilities,
                          size_t capacity,
                          size_t *found);

/**
 * Computes how probable `count` continuations of a prompt are. `continuations` points to `count`
 * texts of UTF-8, each ended by a zero byte. `log_probabilities` has room for `count` results.
 * Result `i` is the natural logarithm of the probability of all tokens of continuation `i`, one
 * after the other. `lengths` may be NULL, or has room for `count` numbers and receives the number
 * of tokens of each continuation.
 *
 * A long continuation has more tokens and so a lower result. To compare continuations of different
 * lengths, divide each result by its number of tokens. exp() of the negative quotient is the
 * perplexity.
 *
 * The prompt is `length` bytes of UTF-8. It comes after the tokens that the session holds, and
 * stays in the session, so that a call with an empty prompt can score more continuations of it.
 * The continuations do not stay. An empty prompt in an empty session stands for the beginning of a
 * text. The prompt and the continuations are tokenized separately: the space before a word belongs
 * to the continuation (" time", not "time").
 *
 * The continuations are evaluated together. Tokens with which several of them begin are evaluated
 * once. That is fastest in a session made with CBL_OPTION_ALL_LOGITS. `options` may be NULL; only
 * CBL_OPTION_PARSE_SPECIAL is used.
 *
 * One thread at a time. On failure the session holds the tokens that it held before. It has no
 * logits afterwards, whether the call succeeds or fails. Results are written on success only.
 * Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT, also if a continuation is empty; CBL_INVALID_UTF8;
 * CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL if the prompt and the longest continuation do
 * not fit; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_CANCELLED; CBL_NO_MEMORY; CBL_UNSUPPORTED;
 * CBL_BUSY; CBL_PANIC.
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
 * Computes how probable continuations are as cbl_score() does, from token ids: a prompt of
 * `prompt_count` ids, and `count` continuations. Continuation `i` has `lengths[i]` tokens, and all
 * continuations lie one after another at `tokens`. `each` may be NULL, or has room for one result
 * for each of these tokens: the natural logarithm of its probability after the tokens before it.
 * Works in a build that cannot tokenize.
 *
 * One thread at a time. Errors: those of cbl_score() that concern no text, CBL_MODEL_CHANGED among
 * them; CBL_BAD_TOKEN.
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
 * Computes an embedding as cbl_embed() does, of `count` token ids. `*width` receives the number of
 * elements. Works in a build that cannot tokenize.
 *
 * One thread at a time. Errors: those of cbl_embed() that concern no text, CBL_MODEL_CHANGED among
 * them; CBL_BAD_TOKEN.
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
 * A classifier finds which of several labels fits a text: the one that the model considers the most
 * probable after the text. Needs a build that can tokenize.
 *
 *     const char *labels[] = {"alarm", "timer", "weather"};
 *     cbl_classifier *classifier;
 *     cbl_classifier_new(model, NULL, labels, 3, &classifier, NULL, 0);
 *     cbl_classify(session, classifier, "wake me at six", 14, &best, NULL, 0);
 *
 * CBL_OPTION_TEMPLATE says where the text and the label stand in what the model reads. The quality
 * depends on it: give the form that the model was trained on, or add some examples.
 */

/** Values of CBL_OPTION_NORMALIZATION: how the length of a label counts. */
typedef int32_t cbl_normalization;
enum {
  /** The score of a label is its log-probability. A longer label has a lower score. */
  CBL_NORMALIZATION_SUM = 0,
  /** The score of a label is its log-probability divided by its number of tokens. */
  CBL_NORMALIZATION_MEAN = 1,
};

/**
 * Values of CBL_OPTION_CALIBRATION: what is subtracted from the score of a label. A model prefers
 * some labels whatever the text is. A classifier measures that at its first use.
 */
typedef int32_t cbl_calibration;
enum {
  /** Nothing. */
  CBL_CALIBRATION_NONE = 0,
  /**
   * The mean of the label's scores after texts that say nothing (Zhao et al., Calibrate Before
   * Use, 2021).
   */
  CBL_CALIBRATION_CONTENT_FREE = 1,
  /** The label's score without any text (Holtzman et al., Surface Form Competition, 2021). */
  CBL_CALIBRATION_MUTUAL_INFORMATION = 2,
};

/** Labels, and what is needed to choose one of them. */
typedef struct cbl_classifier cbl_classifier;

/**
 * Makes a classifier that chooses one of `count` labels. `labels` points to `count` texts of
 * UTF-8, each ended by a zero byte. No two labels are equal, and no label is blank. A label may be
 * the beginning of another.
 *
 * `options` may be NULL. Only CBL_OPTION_TEMPLATE, CBL_OPTION_NORMALIZATION,
 * CBL_OPTION_CALIBRATION and the examples of cbl_options_add_example() are used. Everything is
 * copied. `*classifier` is NULL if that fails.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION if there
 * are no labels or one of them cannot be used, CBL_NO_TOKENIZER, CBL_BAD_TEXT, CBL_MODEL_CHANGED,
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
 * Frees a classifier; NULL is allowed.
 *
 * No other call may be using the handle. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_classifier_free(cbl_classifier *classifier);

/**
 * Finds the label that fits a text best. The text is `length` bytes of UTF-8. `*label` receives
 * the index of the label among those of cbl_classifier_new(). `probabilities` has room for
 * `capacity` results, and receives the probability of each label; their sum is 1. It may be NULL
 * if `capacity` is 0.
 *
 * The session is any session of the classifier's model. Of its options, only the type of the cache
 * can change the result. The call replaces the tokens that the session holds. If the new tokens
 * begin as the ones before did, this beginning is not evaluated again, so classify many texts in
 * one session. That is fastest if the session is made with CBL_OPTION_ALL_LOGITS.
 *
 * One thread at a time for the session; thread-safe for the classifier. Results are written on
 * success only. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT, also if the session is of another model;
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
 * Adds an example that the model reads before every text to be classified: a text of `length`
 * bytes and its label of `label_length` bytes, both UTF-8. They are copied. A few examples help a
 * model that was not trained on the task.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8,
 * CBL_UNSUPPORTED, CBL_BUSY.
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
 * A template puts a task to the model, such as translating or summarizing. It is a prompt with a
 * place for the text, and says where the result ends. Needs a build that can tokenize.
 *
 *     cbl_template *translate;
 *     cbl_template_named(model, "translate", 9, &translate, NULL, 0);
 *     cbl_apply_template(session, translate, NULL, "I am hungry.", 12, on_text, NULL, NULL, 0);
 *
 * A model file may hold templates of its own. "summarize", "translate" (English to French) and some
 * more are built in, for models that were trained on text from the web.
 */

/** How a task is put to a model. */
typedef struct cbl_template cbl_template;

/** What cbl_apply_template() did with a text. Later versions may add fields at the end. */
typedef struct {
  /** Number of parts that the text was cut into; 0 if it was blank. */
  uint64_t parts;
  /** Number of parts whose results were too long and were cut. */
  uint64_t cut_parts;
  /** Number of tokens of the text, without the template. */
  uint64_t text_tokens;
  /** Number of tokens of the prompts. */
  uint64_t prompt_tokens;
  /** Number of tokens generated. */
  uint64_t generated_tokens;
  /** Time that all of it took. */
  double seconds;
  /**
   * Why the last part's result ended: a cbl_stop_reason. CBL_STOP_STRING also if the result has
   * as many sentences as the template asks for.
   */
  int32_t stop_reason;
  /**
   * 1 if the text was cut to fit into the context although the template alone would not have cut
   * it there; otherwise 0.
   */
  int32_t split;
} cbl_template_result;

/**
 * Prepares the template whose name is the `length` bytes at `name`: one of the model file's own,
 * or a built-in one. If there is no such template, the message lists the names that there are.
 * `*prepared` is NULL if that fails.
 *
 * A file's own template cannot keep a device busy for ever. It may ask for a result of 4096
 * tokens, or of one token for each KiB of the file if that is more.
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
 * Prepares a template from its text, `length` bytes of UTF-8: the prompt, with `{text}` in the
 * place of the text. Before the prompt there may be lines of options that end with a line `---`,
 * such as `stop: "\n"`, `max-tokens: 3x` or `split: sentences`. docs/templates.md lists all
 * options. `*prepared` is NULL if that fails.
 *
 * Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION with a message that
 * names the line, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_PANIC.
 */
cbl_status cbl_template_new(const char *text,
                            size_t length,
                            cbl_template **prepared,
                            char *message,
                            size_t message_size);

/**
 * Frees a template; NULL is allowed.
 *
 * No other call may be using the handle. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_template_free(cbl_template *prepared);

/**
 * Applies a template to a text, `length` bytes of UTF-8. The callback receives the result piece by
 * piece, without white space around it. A text that does not fit into the session's context is cut
 * between sentences, unless the template forbids that. The result is then the results of the
 * parts, one after the other.
 *
 * The call replaces the tokens that the session holds. If the new tokens begin as the ones before
 * did, this beginning is not evaluated again. The template brings its own options for generation.
 * Of `options`, which may be NULL, only CBL_OPTION_SEED and CBL_OPTION_TEMPLATE_TOKENS are used.
 * `*result` receives what was done, and `size` is `sizeof *result`; `result` may be NULL if `size`
 * is 0. A call that is cancelled returns CBL_OK, and the stop reason is CBL_STOP_CANCELLED.
 *
 * One thread at a time for the session; thread-safe for the template, which serves any model.
 * Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_INVALID_UTF8; CBL_NO_TOKENIZER; CBL_BAD_TEXT;
 * CBL_CONTEXT_FULL if the context is too small for the template, or for a text that must not be
 * cut; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
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

/* ---- Conversations ------------------------------------------------------------------------
 *
 * A conversation is a list of messages. Each has a role, which is "system", "user" or "assistant",
 * and a content. The chat template in the model file puts them into the form that the model knows.
 * The text of a message never becomes a control token. docs/chat.md says more.
 *
 *     const char *roles[] = {"system", "user"};
 *     const char *contents[] = {"Answer in one sentence.", "What is the capital of France?"};
 *     cbl_chat_answer(session, NULL, roles, contents, 2, on_text, NULL, NULL, 0);
 *
 * The program keeps the messages. For the next turn, add the answer and the next message to both
 * lists and call again on the same session: only what is new is evaluated.
 */

/** What cbl_chat_answer() did. Later versions may add fields at the end. */
typedef struct {
  /** Number of tokens of the conversation that were evaluated. */
  uint64_t prompt_tokens;
  /** Number of tokens of the conversation that the session held already. */
  uint64_t reused_tokens;
  /** Number of tokens generated. */
  uint64_t generated_tokens;
  /**
   * Number of messages that were left out because the context is full: the oldest ones after the
   * system message.
   */
  uint64_t left_out;
  /** Why the answer ended: a cbl_stop_reason. */
  int32_t stop_reason;
  /** 0. */
  int32_t reserved;
} cbl_chat_result;

/**
 * Returns whether this build evaluates every chat template. If not, it knows conversations only if
 * the quantizer found a simple form of the model's template, and only with messages of user and
 * assistant in turn, perhaps after one of the system.
 *
 * Thread-safe.
 */
bool cbl_has_chat(void);

/**
 * Turns a conversation of `count` messages into token ids, what asks for an answer included. The
 * roles and contents end with zero bytes. If the last message is the assistant's, it is the
 * beginning of the answer. `*number` receives the number of ids. `tokens` has room for `capacity`
 * ids, and receives them if they all fit. A capacity of 0 only asks for the number, and then gives
 * CBL_BUFFER_TOO_SMALL. `options` may be NULL; only CBL_OPTION_DATE and CBL_OPTION_THINKING are
 * used.
 *
 * Thread-safe. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_INVALID_UTF8; CBL_NO_TOKENIZER;
 * CBL_BAD_TEXT; CBL_BAD_OPTION if the model has no chat template, or if the template refuses the
 * messages; CBL_BUFFER_TOO_SMALL; CBL_MODEL_CHANGED; CBL_NO_THREADS; CBL_NO_MEMORY;
 * CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_chat_tokens(const cbl_model *model,
                           const cbl_options *options,
                           const char *const *roles,
                           const char *const *contents,
                           size_t count,
                           uint32_t *tokens,
                           size_t capacity,
                           size_t *number,
                           char *message,
                           size_t message_size);

/**
 * Lets the model answer a conversation of `count` messages. The roles and contents end with zero
 * bytes. The callback receives the answer piece by piece, as that of cbl_generate() does. The
 * answer ends at any token that ends a text or a turn of the model. If the last message is the
 * assistant's, the answer continues it.
 *
 * The conversation replaces the tokens that the session holds. If it begins as they do, this
 * beginning is not evaluated again. If the conversation and an answer of CBL_OPTION_MAX_TOKENS
 * tokens, or of half the context if that is less, do not fit into the context, the oldest turns are
 * left out, whole. The system message and the last turn stay.
 *
 * `options` may be NULL. They are those of cbl_generate(), CBL_OPTION_DATE and
 * CBL_OPTION_THINKING. `*result` receives what was done, and `size` is `sizeof *result`; `result`
 * may be NULL if `size` is 0. A call that is cancelled returns CBL_OK, and the stop reason is
 * CBL_STOP_CANCELLED.
 *
 * One thread at a time. Errors: those of cbl_generate(), CBL_MODEL_CHANGED among them, and of
 * cbl_chat_tokens(); CBL_CONTEXT_FULL if the last turn does not fit.
 */
cbl_status cbl_chat_answer(cbl_session *session,
                           const cbl_options *options,
                           const char *const *roles,
                           const char *const *contents,
                           size_t count,
                           cbl_text_callback callback,
                           void *user,
                           cbl_chat_result *result,
                           size_t size);

/* ---- Batches ------------------------------------------------------------------------------
 *
 * A batch is several sequences. One pass over the weights evaluates tokens of all of them, so eight
 * sequences take little longer than one. Each sequence gives the same bits as in a session of its
 * own.
 *
 * For many prompts, make a batch of as many sequences as memory allows (cbl_model_plan_batch()),
 * and pass all prompts to cbl_batch_generate(). When a text ends, the next prompt takes its
 * sequence.
 */

/** Several sequences of tokens that are evaluated together, numbered from 0. */
typedef struct cbl_batch cbl_batch;

/**
 * Receives a piece of the text that continues prompt number `index`. Return false to end that
 * text; the other texts go on. Otherwise as cbl_text_callback.
 */
typedef bool (*cbl_batch_text_callback)(void *user,
                                        size_t index,
                                        const char *text,
                                        size_t length);

/**
 * Receives a token that continues prompt number `index`. Return false to end that text; the other
 * texts go on. Otherwise as cbl_text_callback.
 */
typedef bool (*cbl_batch_token_callback)(void *user, size_t index, uint32_t token);

/**
 * Writes to `*plan` what memory a batch of `sequences` sequences takes, as cbl_model_plan() does
 * for a session. Each sequence has the context that the options say.
 *
 * Thread-safe. Errors: those of cbl_model_plan(); CBL_BAD_OPTION also if `sequences` is not in 1
 * to 1024.
 */
cbl_status cbl_model_plan_batch(const cbl_model *model,
                                const cbl_options *options,
                                size_t sequences,
                                cbl_memory_plan *plan,
                                size_t size,
                                char *message,
                                size_t message_size);

/**
 * Makes a batch of `sequences` sequences, 1 to 1024. Each has the context that the options say.
 * `options` may be NULL. The options count as for cbl_session_new(), but CBL_OPTION_ALL_LOGITS,
 * CBL_OPTION_DRAFT and an arena are not used. `*batch` is NULL if that fails.
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
 * Keeps a batch's memory in RAM, as cbl_session_lock_memory() does for a session.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_BUSY;
 * CBL_PANIC.
 */
cbl_status cbl_batch_lock_memory(cbl_batch *batch);

/**
 * Frees a batch; NULL is allowed.
 *
 * No other call may be using the handle. This is checked: during a call, the function returns
 * CBL_BUSY and frees nothing. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_batch_free(cbl_batch *batch);

/**
 * Returns why the last failed call on this batch failed, as cbl_session_error() does for a
 * session.
 *
 * One thread at a time.
 */
const char *cbl_batch_error(cbl_batch *batch);

/**
 * Forgets the tokens of a sequence from `position` on; with 0, all of them. Takes no time.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if there is no such sequence,
 * CBL_BAD_POSITION, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_rewind(cbl_batch *batch, size_t sequence, size_t position);

/**
 * Finds the tokens in a sequence: `*tokens` points to `*count` ids, valid until the next call on
 * the batch. NULL and 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_tokens(cbl_batch *batch,
                            size_t sequence,
                            const uint32_t **tokens,
                            size_t *count);

/**
 * Appends tokens to `count` sequences and evaluates them. Sequence `sequences[i]` gets
 * `lengths[i]` tokens, at least one. All tokens lie one after another at `tokens`. No sequence is
 * named twice. Afterwards the last tokens of these sequences have logits, which can be read or
 * sampled. Other sequences have none.
 *
 * One thread at a time. On failure all sequences hold the tokens that they held before, and have
 * no logits. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_BAD_OPTION if a sequence does not exist
 * or is named twice; CBL_BAD_TOKEN; CBL_CONTEXT_FULL; CBL_MODEL_CHANGED; CBL_NON_FINITE;
 * CBL_CANCELLED; CBL_NO_MEMORY; CBL_BUSY; CBL_PANIC.
 */
cbl_status cbl_batch_evaluate(cbl_batch *batch,
                              const size_t *sequences,
                              const size_t *lengths,
                              size_t count,
                              const uint32_t *tokens);

/**
 * Finds the logits of a sequence's last token, if the last cbl_batch_evaluate() named the
 * sequence: `*logits` points to `*count` floats, one for each token of the vocabulary. They are
 * valid until the next call that evaluates, generates, rewinds or frees. NULL and 0 on failure.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY,
 * CBL_PANIC.
 */
cbl_status cbl_batch_logits(cbl_batch *batch,
                            size_t sequence,
                            const float **logits,
                            size_t *count);

/**
 * Chooses the next token of a sequence, as cbl_session_sample() does for a session. The token is
 * not appended.
 *
 * One thread at a time. Errors: those of cbl_session_sample().
 */
cbl_status cbl_batch_sample(cbl_batch *batch,
                            size_t sequence,
                            const cbl_options *options,
                            uint32_t *token);

/**
 * Stops the call that evaluates or generates on the batch, or if none is running, the next one.
 * The call returns CBL_CANCELLED, also if it generates. Otherwise as cbl_session_cancel().
 *
 * Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_batch_cancel(const cbl_batch *batch);

/**
 * Takes back a request of cbl_batch_cancel() that no call has used up yet.
 *
 * Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
 */
cbl_status cbl_batch_clear_cancel(const cbl_batch *batch);

/**
 * Continues `count` prompts; there may be any number. `prompts` points to `count` texts of UTF-8,
 * each ended by a zero byte. Each prompt is continued as cbl_generate() does in a session that is
 * reset. At any time, as many texts are generated as the batch has sequences. The tokens that the
 * sequences held before are forgotten. The callback receives pieces of all texts as they come.
 * `options` may be NULL.
 *
 * `statuses` and `reasons` may be NULL, or have room for `count` results each: the status of each
 * prompt, and why its text ended. A prompt that cannot be continued, such as one that is too long,
 * does not disturb the others. If the options ask for texts of a given form, every text gets that
 * form.
 *
 * One thread at a time. Takes some memory from the heap for each prompt and each pass. If a
 * failure concerns all prompts, the call ends with its status, and `statuses` and `reasons` are
 * not written. Otherwise the call returns the status of the first prompt that failed. Errors:
 * CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER, CBL_BAD_TEXT,
 * CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_NO_MEMORY,
 * CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC; for single prompts, CBL_CONTEXT_FULL.
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
 * Continues prompts as cbl_batch_generate() does, in token ids. Prompt `i` has `lengths[i]`
 * tokens; with 0, a new text starts. The tokens of all prompts lie one after another at `tokens`.
 * Works in a build that cannot tokenize. Stop strings are ignored. The end-of-text token is not
 * passed on.
 *
 * One thread at a time. Errors: those of cbl_batch_generate() that concern no text,
 * CBL_MODEL_CHANGED among them; for single prompts, CBL_BAD_TOKEN and CBL_CONTEXT_FULL.
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
 * cbl_batch_generate() for a loop of your own: the library works only while you ask for the next
 * step. The step belongs to any of the texts.
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
 * A batch has one generation at a time. These functions do not disturb it: cbl_batch_tokens(),
 * cbl_batch_logits(), cbl_batch_sample(), cbl_batch_lock_memory(), and all that take a `const
 * cbl_batch *`. Every other call on the batch ends the generation, also a call that fails, unless
 * it fails with CBL_BUSY.
 */

/** A step of a batch's generation. Later versions may add fields at the end. */
typedef struct {
  /** Number of the prompt that the step belongs to. */
  size_t index;
  /**
   * The token, or -1 if the step has none: it is text that was held back, after the last token,
   * or the end of the text.
   */
  int64_t token;
  /** Whole characters, without a zero byte at the end. Often empty. */
  const char *text;
  /** Length of the text in bytes. */
  size_t length;
  /**
   * Why the text has ended: a cbl_stop_reason. CBL_STOP_NONE before the end, and if the prompt
   * could not be continued.
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
 * Begins to continue prompts as cbl_batch_begin() does, in token ids, as
 * cbl_batch_generate_tokens() takes them. Works in a build that cannot tokenize. If the model file
 * holds no tokenizer, steps have no text, and options with stop strings give CBL_NO_TOKENIZER.
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
 * Makes the next step of any of the texts: `*step` receives it, and `size` is `sizeof *step`. If
 * no step is ready, the call first makes a pass over the weights. The text in the step is valid
 * until the next call on the batch. The last step of each prompt has no token and no text; its
 * `reason` or `status` says how the text ended.
 *
 * When all prompts are done, `*more` is false and the step has no prompt, no token and no text;
 * further calls give the same. Takes some memory from the heap for each pass.
 *
 * One thread at a time. A failure ends the generation. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT,
 * CBL_NO_GENERATION, CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED,
 * CBL_NO_MEMORY, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_next(cbl_batch *batch,
                          uint64_t generation,
                          cbl_batch_step *step,
                          size_t size,
                          bool *more);

/**
 * Ends the text of prompt number `index`, as the callback of cbl_batch_generate() does when it
 * returns false. The other texts go on. Steps of this text that are ready still come, and then its
 * last step, with CBL_STOP_CANCELLED unless the text has ended before.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if there is no such prompt,
 * CBL_NO_GENERATION, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_stop(cbl_batch *batch,
                          uint64_t generation,
                          size_t index);

/**
 * Ends a generation, whether all prompts are done or not. Takes back a request of
 * cbl_batch_cancel(), so that it does not stop the next call. If the generation is not the
 * batch's, the call does nothing and succeeds.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_batch_end(cbl_batch *batch, uint64_t generation);

/* ---- Saving -------------------------------------------------------------------------------
 *
 * A session's tokens, cache and last logits can be saved as bytes. A prompt is then evaluated once
 * and restored any number of times, each in milliseconds, and the session goes on with the same
 * bits. The saved bytes contain a fingerprint of the model and a checksum. They fit any session of
 * the same model and the same type of cache that has room for the tokens; threads, chunk and
 * instruction set may differ. The bytes are not encrypted: whoever can read them can read the
 * tokens. The checksum finds accidents, not forgeries.
 */

/**
 * Saves a session to a buffer of `capacity` bytes. `*size` receives the number of bytes that it
 * takes, also if the buffer is too small. A capacity of 0 only asks for the number, and gives
 * CBL_BUFFER_TOO_SMALL.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUFFER_TOO_SMALL,
 * CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_save(cbl_session *session, void *buffer, size_t capacity, size_t *size);

/**
 * Restores what cbl_session_save() wrote: `size` bytes at `data`. It replaces the tokens that the
 * session holds.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_SAVED, CBL_CONTEXT_FULL
 * if the session has too few positions, CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC.
 */
cbl_status cbl_session_restore(cbl_session *session,
                               const void *data,
                               size_t size);

/**
 * Saves a session to a file. Only the owner may read it (mode 0600), because it holds the tokens.
 *
 * The file is written under another name beside `path`, flushed to the disk and then renamed. So
 * `path` is always the old file or the new one, and never a part, also if several sessions save to
 * it at the same time. A symbolic link stands for the file that it leads to. A device, a pipe, a
 * socket or a directory is refused. A process that is killed may leave a file `.NAME.<16
 * digits>.cbl-tmp`; the next call for the same path removes it.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_IO, CBL_NO_MEMORY,
 * CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC; CBL_UNSUPPORTED without an operating system.
 */
cbl_status cbl_session_save_file(cbl_session *session,
                                 const char *path);

/**
 * Restores what cbl_session_save_file() wrote, from a regular file. The call reads the file twice,
 * first to check it. If the file is changed or cannot be read the second time, the session is
 * reset.
 *
 * One thread at a time. Errors: those of cbl_session_restore(), CBL_MODEL_CHANGED among them;
 * CBL_IO; CBL_UNSUPPORTED without an operating system.
 */
cbl_status cbl_session_restore_file(cbl_session *session,
                                    const char *path);

/* ---- Log, progress, memory and threads of the host ----------------------------------------
 *
 * A program can give the library a log, a callback for progress, memory and a thread pool. All are
 * options, and none is needed.
 */

/** How much a log message matters. */
typedef int32_t cbl_log_level;
enum {
  /** A call failed because of a bug. */
  CBL_LOG_ERROR = 1,
  /** Something may need attention. */
  CBL_LOG_WARNING = 2,
  /** A model was opened, a session was made, a text was generated. */
  CBL_LOG_INFO = 3,
};

/** What takes time while a model is opened. */
typedef int32_t cbl_stage;
enum {
  /** CBL_ACCESS_READ: the file is read into memory. */
  CBL_STAGE_READ = 1,
  /** CBL_OPTION_VERIFY: the checksums are computed. */
  CBL_STAGE_VERIFY = 2,
};

/**
 * Receives a log message: a cbl_log_level, and English text that ends with a zero byte and is
 * valid until the callback returns. The callback runs on the thread whose call the message is
 * about. It must not throw or longjmp.
 */
typedef void (*cbl_log_callback)(void *user, int32_t level, const char *message);

/**
 * Receives how far a model is opened: a cbl_stage, and that `done` of `total` bytes of this stage
 * are done. It is called at the beginning of each stage, every few mebibytes and at the end, on
 * the thread that opens the model. Return false to give up: the opening call then returns
 * CBL_CANCELLED. The callback must not throw or longjmp.
 */
typedef bool (*cbl_progress_callback)(void *user, int32_t stage, uint64_t done, uint64_t total);

/** One piece of work; see cbl_parallel_callback. */
typedef void (*cbl_task)(void *context, size_t index);

/**
 * Runs tasks on the host's thread pool: calls `task(context, i)` exactly once for each `i` from 0
 * to `count` - 1, and returns when all these calls have returned. The calls may be made on any
 * threads, at the same time or not.
 *
 * Tasks do not wait for each other, so it is correct to run them one after another. The callback
 * must not throw or longjmp. If a pool leaves out a task or runs it twice, the library notices,
 * and the call returns CBL_PANIC.
 */
typedef void (*cbl_parallel_callback)(void *user, size_t count, cbl_task task, void *context);

/**
 * Sets the callback that receives the log messages of models and sessions made with these options.
 * NULL, the default, for none. The library never writes to standard output or standard error.
 *
 * `user` is passed to the callback. Both must stay valid as long as any model or session made with
 * these options. The callback may run on several threads at once if the host calls the library on
 * several threads.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_options_set_log(cbl_options *options,
                               cbl_log_callback callback,
                               void *user);

/**
 * Sets the callback that receives the progress of opening models with these options, and may give
 * up. NULL, the default, for none. A file that is only mapped reports no progress, because that
 * takes no time.
 *
 * `user` is passed to the callback. Both must stay valid as long as any call that opens a model
 * with these options is running.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
 */
cbl_status cbl_options_set_progress(cbl_options *options,
                                    cbl_progress_callback callback,
                                    void *user);

/**
 * Sets the memory for the session that is made with these options, in place of the heap: `bytes`
 * bytes at `memory`, which begins on a 64-byte boundary. NULL, the default, for none.
 *
 * The arena must hold at least the total bytes of cbl_model_plan(). The session uses that number
 * of bytes, and nobody else may use them until the session is freed. For another session, set
 * another arena: if some of its bytes belong to another session, cbl_session_new() and
 * cbl_session_fork() return CBL_BAD_ARGUMENT. Making the session writes zeros to all bytes that it
 * uses.
 *
 * With an arena, the library takes from the heap only the session's handle (under 2 KiB) and a
 * note that the memory is in use. With more than one thread, the system also takes what it needs
 * for threads. Batches do not use an arena.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY.
 */
cbl_status cbl_options_set_arena(cbl_options *options,
                                 void *memory,
                                 size_t bytes);

/**
 * Sets the host's thread pool, on which sessions made with these options run, in place of threads
 * of their own. `workers`, 1 to 64, is the number of tasks that can run at the same time;
 * CBL_OPTION_THREADS is then not used. NULL, the default, for none.
 *
 * A forward pass calls the callback about ten times per layer, so the pool should start tasks
 * within microseconds. `user` is passed to the callback. Both must stay valid as long as any
 * session made with these options. Results are the same bits whatever the pool does.
 *
 * One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY.
 */
cbl_status cbl_options_set_pool(cbl_options *options,
                                cbl_parallel_callback callback,
                                size_t workers,
                                void *user);

/* ---- Without an operating system ----------------------------------------------------------
 *
 * A library that was made by `packaging/install.sh --bare` needs no operating system and no C library. It has no files,
 * no threads and no clock: functions that need a file return CBL_UNSUPPORTED, CBL_OPTION_THREADS is 1, and times
 * are 0. A bug, which gives CBL_PANIC elsewhere, ends in the host's callback.
 *
 * The library allocates from memory that the host gives it once. All calls come from one thread, which no other
 * interrupts to call the library; only cbl_session_cancel() and cbl_batch_cancel() may be called by an
 * interrupt handler or on another core.
 */

/**
 * Is told of a bug in the library, in English; the text ends with a zero byte. It must not return, throw or
 * longjmp: it resets the device, for example. If it returns, the library loops forever.
 */
typedef void (*cbl_panic_callback)(const char *message);

/**
 * Gives the library `size` bytes at `memory` to allocate from, for good. Comes before all other calls, and once.
 * `on_panic` may be NULL.
 *
 * cbl_model_plan() says what a session takes of it, if it has no arena of its own. A model takes some 120 KB, most of
 * it while it is opened, and texts a little more.
 *
 * Errors: CBL_BAD_ARGUMENT, CBL_BUSY if it was called before, CBL_UNSUPPORTED if there is an operating system.
 */
cbl_status cbl_bare_start(void *memory,
                          size_t size,
                          cbl_panic_callback on_panic);

/**
 * Writes how many bytes of the memory of cbl_bare_start() are in use, and how many were at most.
 *
 * Errors: CBL_BAD_ARGUMENT, CBL_UNSUPPORTED if there is an operating system.
 */
cbl_status cbl_bare_memory(size_t *used,
                           size_t *most);

#ifdef __cplusplus
}
#endif

#endif /* CEREBELLUM_H */
