// cerebellum.hpp: the C interface (cerebellum.h) as C++11 classes that free themselves and throw.
//
// Several threads may share a Model. One thread at a time may use a Session. For the rest, see the comments
// of the C functions. A callback may throw: the generation then stops, and the caller gets the exception.
#ifndef CEREBELLUM_HPP
#define CEREBELLUM_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cerebellum.h"

namespace cerebellum {

/// The failure of a call of the C interface: its status and its message.
class Error : public std::runtime_error {
 public:
  Error(cbl_status status, const std::string &message)
      : std::runtime_error(message.empty() ? cbl_status_text(status) : message), status_(status) {}
  cbl_status status() const noexcept { return status_; }

 private:
  cbl_status status_;
};

namespace detail {

inline void check(cbl_status status, const char *message = "") {
  if (status != CBL_OK) throw Error(status, message);
}

struct Free {
  void operator()(cbl_options *it) const noexcept { cbl_options_free(it); }
  void operator()(cbl_model *it) const noexcept { cbl_model_free(it); }
  void operator()(cbl_session *it) const noexcept { cbl_session_free(it); }
  void operator()(cbl_classifier *it) const noexcept { cbl_classifier_free(it); }
  void operator()(cbl_template *it) const noexcept { cbl_template_free(it); }
  void operator()(cbl_batch *it) const noexcept { cbl_batch_free(it); }
};

// Carries an exception of a callback past the C functions, which it must not go through.
template <typename Function>
struct Callback {
  Function &function;
  std::exception_ptr thrown;

  template <typename... Arguments>
  bool call(Arguments &&...arguments) noexcept {
    try {
      return function(std::forward<Arguments>(arguments)...);
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }

  static bool on_text(void *self, const char *text, std::size_t length) {
    return static_cast<Callback *>(self)->with_text(text, length);
  }
  static bool on_batch_text(void *self, std::size_t index, const char *text, std::size_t length) {
    return static_cast<Callback *>(self)->with_text(text, length, index);
  }
  // `before`: an index or nothing.
  template <typename... Before>
  bool with_text(const char *text, std::size_t length, Before... before) noexcept {
    try {
      return function(before..., std::string(text, length));
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }
  static bool on_token(void *self, std::uint32_t token) {
    return static_cast<Callback *>(self)->call(token);
  }
  static bool on_step(void *self, const cbl_step *step) {
    return static_cast<Callback *>(self)->call(*step);
  }
  static bool on_logits(void *self, std::size_t position, const float *logits, std::size_t count) {
    return static_cast<Callback *>(self)->call(position, logits, count);
  }
  static bool on_batch_token(void *self, std::size_t index, std::uint32_t token) {
    return static_cast<Callback *>(self)->call(index, token);
  }
  void rethrow() {
    if (thrown) std::rethrow_exception(thrown);
  }
};

// A text for the C interface, ended by a zero byte. A zero byte inside would end it too early.
inline const char *ended(const std::string &text, const char *what) {
  if (text.find('\0') != std::string::npos) {
    throw Error(CBL_BAD_ARGUMENT, std::string(what) + " has a zero byte");
  }
  return text.c_str();
}

// A list of texts for the C interface.
inline std::vector<const char *> list(const std::vector<std::string> &texts) {
  std::vector<const char *> list;
  for (const std::string &text : texts) list.push_back(ended(text, "a text in a list"));
  return list;
}

// Lists of tokens that lie one after another, and their lengths.
struct Lists {
  explicit Lists(const std::vector<std::vector<std::uint32_t>> &lists) {
    for (const std::vector<std::uint32_t> &list : lists) {
      tokens.insert(tokens.end(), list.begin(), list.end());
      lengths.push_back(list.size());
    }
  }
  std::vector<std::uint32_t> tokens;
  std::vector<std::size_t> lengths;
};

}  // namespace detail

/// A token and the natural logarithm of its probability.
struct TokenProbability {
  std::uint32_t token;
  double log_probability;
};

/// The `most` most probable tokens by `count` logits, or fewer if there are fewer; the most probable first.
inline std::vector<TokenProbability> top_tokens(const float *logits, std::size_t count,
                                                std::size_t most) {
  const std::size_t room = most < count ? most : count;
  std::vector<std::uint32_t> tokens(room ? room : 1);
  std::vector<double> logs(room ? room : 1);
  std::size_t found = 0;
  detail::check(cbl_top_tokens(logits, count, tokens.data(), logs.data(), room, &found));
  std::vector<TokenProbability> top;
  for (std::size_t i = 0; i < found; i++) top.push_back({tokens[i], logs[i]});
  return top;
}
inline std::vector<TokenProbability> top_tokens(const std::vector<float> &logits, std::size_t most) {
  return top_tokens(logits.data(), logits.size(), most);
}
/// The natural logarithm of a token's probability by `count` logits.
inline double log_probability(const float *logits, std::size_t count, std::uint32_t token) {
  double result = 0;
  detail::check(cbl_log_probabilities(logits, count, &token, 1, &result));
  return result;
}

/// Options for models, sessions and generations.
class Options {
 public:
  Options() {
    cbl_options *made = nullptr;
    detail::check(cbl_options_new(&made));
    options_.reset(made);
  }

  /// Sets an option of type int. The value may be one of the header's constants.
  template <typename Int, typename std::enable_if<
                              std::is_integral<Int>::value || std::is_enum<Int>::value, int>::type = 0>
  Options &set(std::int32_t key, Int value) {
    return check(cbl_options_set_int(get(), key, static_cast<std::int64_t>(value)));
  }
  /// Sets an option of type float.
  Options &set(std::int32_t key, double value) {
    return check(cbl_options_set_float(get(), key, value));
  }
  /// Sets an option of type string.
  Options &set(std::int32_t key, const std::string &value) {
    return check(cbl_options_set_string(get(), key, value.data(), value.size()));
  }
  Options &add_stop(const std::string &stop) {
    return check(cbl_options_add_stop(get(), stop.data(), stop.size()));
  }
  Options &clear_stops() { return check(cbl_options_clear_stops(get())); }
  Options &set_logit_bias(std::uint32_t token, double bias) {
    return check(cbl_options_set_logit_bias(get(), token, bias));
  }
  Options &clear_logit_biases() { return check(cbl_options_clear_logit_biases(get())); }
  Options &add_example(const std::string &text, const std::string &label) {
    return check(
        cbl_options_add_example(get(), text.data(), text.size(), label.data(), label.size()));
  }
  Options &clear_examples() { return check(cbl_options_clear_examples(get())); }

  /// The C handle, for everything else: log, progress, arena, pool.
  cbl_options *get() const noexcept { return options_.get(); }

 private:
  Options &check(cbl_status status) {
    if (status != CBL_OK) throw Error(status, cbl_options_error(get()));
    return *this;
  }
  std::unique_ptr<cbl_options, detail::Free> options_;
};

/// An open model.
/// A message of a conversation. The role is "system", "user" or "assistant".
struct Message {
  std::string role, content;
};

namespace detail {
// Roles and contents of messages, for C.
struct Conversation {
  explicit Conversation(const std::vector<Message> &messages) {
    for (const Message &message : messages) {
      roles.push_back(ended(message.role, "a role"));
      contents.push_back(ended(message.content, "a message"));
    }
  }
  std::vector<const char *> roles, contents;
};
}  // namespace detail

class Model {
 public:
  explicit Model(const std::string &path) : Model(path, nullptr) {}
  Model(const std::string &path, const Options &options) : Model(path, options.get()) {}

  /// Opens a model in memory, which begins on a 64-byte boundary. The caller keeps the memory.
  static Model from_memory(const void *data, std::size_t size) {
    return from_memory_with(data, size, nullptr);
  }
  static Model from_memory(const void *data, std::size_t size, const Options &options) {
    return from_memory_with(data, size, options.get());
  }

  /// Opens a model that is a part of a file, such as an asset in a package: `length` bytes from `offset` on.
  /// The descriptor stays the caller's.
  static Model from_fd(int fd, std::uint64_t offset, std::uint64_t length) {
    return from_fd_with(fd, offset, length, nullptr);
  }
  static Model from_fd(int fd, std::uint64_t offset, std::uint64_t length, const Options &options) {
    return from_fd_with(fd, offset, length, options.get());
  }

  cbl_model_info info() const {
    cbl_model_info info;
    detail::check(cbl_model_get_info(get(), &info, sizeof info));
    return info;
  }
  cbl_memory_plan plan() const { return plan_with(nullptr); }
  cbl_memory_plan plan(const Options &options) const { return plan_with(options.get()); }
  /// The memory of a batch of `sequences` sequences.
  cbl_memory_plan plan(std::size_t sequences) const { return plan_with(nullptr, sequences); }
  cbl_memory_plan plan(const Options &options, std::size_t sequences) const {
    return plan_with(options.get(), sequences);
  }
  void verify() const {
    char message[256];
    detail::check(cbl_model_verify(get(), message, sizeof message), message);
  }

  /// Keeps all pages in memory; throws CBL_NO_MEMORY if the system refuses.
  void lock_memory() const {
    char message[256];
    detail::check(cbl_model_lock_memory(get(), message, sizeof message), message);
  }

  /// Copies weights to memory that is faster than the model's and nobody else's until it and its
  /// sessions are gone; returns how many bytes of the model a token no longer reads.
  std::size_t copy_weights(void *memory, std::size_t bytes) const {
    char message[256];
    std::size_t saved;
    detail::check(cbl_model_copy_weights(get(), memory, bytes, &saved, message, sizeof message), message);
    return saved;
  }

  std::vector<std::uint32_t> tokenize(const std::string &text) const { return tokenize(text, nullptr); }
  std::vector<std::uint32_t> tokenize(const std::string &text, const Options &options) const {
    return tokenize(text, options.get());
  }
  /// The bytes that tokens stand for: UTF-8 if they are whole characters.
  std::string detokenize(const std::vector<std::uint32_t> &tokens) const {
    char message[256];
    std::size_t length = 0;
    cbl_status status = cbl_model_detokenize(get(), tokens.data(), tokens.size(), nullptr, 0, &length,
                                             message, sizeof message);
    std::string text(length, '\0');
    if (status == CBL_BUFFER_TOO_SMALL) {
      status = cbl_model_detokenize(get(), tokens.data(), tokens.size(), &text[0], text.size(), &length,
                                    message, sizeof message);
    }
    detail::check(status, message);
    return text;
  }

  /// The tokens of a conversation by the model's chat template, what asks for an answer included.
  std::vector<std::uint32_t> chat_tokens(const std::vector<Message> &messages) const {
    return chat_tokens_with(messages, nullptr);
  }
  std::vector<std::uint32_t> chat_tokens(const std::vector<Message> &messages, const Options &options) const {
    return chat_tokens_with(messages, options.get());
  }

  cbl_model *get() const noexcept { return model_.get(); }

 private:
  explicit Model(cbl_model *made) : model_(made) {}
  std::vector<std::uint32_t> chat_tokens_with(const std::vector<Message> &messages,
                                              const cbl_options *options) const {
    const detail::Conversation c(messages);
    char message[256];
    std::size_t number = 0;
    cbl_status status = cbl_chat_tokens(get(), options, c.roles.data(), c.contents.data(), messages.size(),
                                        nullptr, 0, &number, message, sizeof message);
    std::vector<std::uint32_t> tokens(number);
    if (status == CBL_BUFFER_TOO_SMALL) {
      status = cbl_chat_tokens(get(), options, c.roles.data(), c.contents.data(), messages.size(),
                               tokens.data(), tokens.size(), &number, message, sizeof message);
    }
    detail::check(status, message);
    return tokens;
  }
  Model(const std::string &path, cbl_options *options) {
    char message[256];
    cbl_model *made = nullptr;
    const char *name = detail::ended(path, "a path");
    detail::check(cbl_model_open(name, options, &made, message, sizeof message), message);
    model_.reset(made);
  }
  static Model from_fd_with(int fd, std::uint64_t offset, std::uint64_t length,
                            const cbl_options *options) {
    char message[256];
    cbl_model *made = nullptr;
    detail::check(
        cbl_model_open_fd_range(fd, offset, length, options, &made, message, sizeof message), message);
    return Model(made);
  }
  static Model from_memory_with(const void *data, std::size_t size, const cbl_options *options) {
    char message[256];
    cbl_model *made = nullptr;
    detail::check(cbl_model_open_memory(data, size, options, &made, message, sizeof message),
                  message);
    return Model(made);
  }
  cbl_memory_plan plan_with(const cbl_options *options) const {
    char message[256];
    cbl_memory_plan plan;
    detail::check(cbl_model_plan(get(), options, &plan, sizeof plan, message, sizeof message),
                  message);
    return plan;
  }
  cbl_memory_plan plan_with(const cbl_options *options, std::size_t sequences) const {
    char message[256];
    cbl_memory_plan plan;
    detail::check(cbl_model_plan_batch(get(), options, sequences, &plan, sizeof plan, message,
                                       sizeof message),
                  message);
    return plan;
  }
  std::vector<std::uint32_t> tokenize(const std::string &text, cbl_options *options) const {
    char message[256];
    std::vector<std::uint32_t> tokens(text.size() + 2);
    std::size_t count = 0;
    const auto tokenize = [&] {
      return cbl_model_tokenize(get(), options, text.data(), text.size(), tokens.data(),
                                tokens.size(), &count, message, sizeof message);
    };
    cbl_status status = tokenize();
    if (status == CBL_BUFFER_TOO_SMALL) { // A tokenizer that normalizes texts may make them longer.
      tokens.resize(count);
      status = tokenize();
    }
    detail::check(status, message);
    tokens.resize(count);
    return tokens;
  }
  std::unique_ptr<cbl_model, detail::Free> model_;
};

/// Labels, and what is needed to choose one of them for a text. Several threads may share it.
class Classifier {
 public:
  Classifier(const Model &model, std::vector<std::string> labels)
      : Classifier(model, std::move(labels), nullptr) {}
  Classifier(const Model &model, std::vector<std::string> labels, const Options &options)
      : Classifier(model, std::move(labels), options.get()) {}

  const std::vector<std::string> &labels() const noexcept { return labels_; }
  cbl_classifier *get() const noexcept { return classifier_.get(); }

 private:
  Classifier(const Model &model, std::vector<std::string> labels, cbl_options *options)
      : labels_(std::move(labels)) {
    char message[256];
    cbl_classifier *made = nullptr;
    const std::vector<const char *> list = detail::list(labels_);
    detail::check(cbl_classifier_new(model.get(), options, list.data(), list.size(), &made, message,
                                     sizeof message),
                  message);
    classifier_.reset(made);
  }
  std::vector<std::string> labels_;
  std::unique_ptr<cbl_classifier, detail::Free> classifier_;
};

/// How a task is put to a model. A template of the model's own or a built-in one has a name; from_text()
/// makes one from its text.
class Template {
 public:
  Template(const Model &model, const std::string &name) {
    char message[256];
    cbl_template *made = nullptr;
    detail::check(cbl_template_named(model.get(), name.data(), name.size(), &made, message,
                                     sizeof message),
                  message);
    template_.reset(made);
  }
  static Template from_text(const std::string &text) {
    char message[256];
    cbl_template *made = nullptr;
    detail::check(cbl_template_new(text.data(), text.size(), &made, message, sizeof message), message);
    return Template(made);
  }
  cbl_template *get() const noexcept { return template_.get(); }

 private:
  explicit Template(cbl_template *made) : template_(made) {}
  std::unique_ptr<cbl_template, detail::Free> template_;
};

/// How probable a continuation is.
struct Score {
  /// Natural logarithm of the probability of all its tokens, one after the other.
  double log_probability;
  /// Number of its tokens.
  std::size_t tokens;
};

/// What a classifier found.
struct Classification {
  /// Index of the best label.
  std::size_t label;
  /// Of each label. Their sum is 1.
  std::vector<double> probabilities;
};

/// The text of a generation, piece by piece. Session::stream() makes it. It works only while you ask for the
/// next piece.
///
///     for (const std::string &piece : session.stream("Once upon a time")) std::cout << piece;
///
/// Leaving the loop ends the generation, also by an exception. Any other call that changes the session ends it
/// too. The session must outlive the stream.
class Stream {
 public:
  Stream(Stream &&other) noexcept
      : session_(other.session_),
        generation_(other.generation_),
        reason_(other.reason_),
        piece_(std::move(other.piece_)) {
    other.generation_ = 0;
  }
  Stream &operator=(Stream &&other) noexcept {
    std::swap(session_, other.session_);
    std::swap(generation_, other.generation_);
    std::swap(reason_, other.reason_);
    std::swap(piece_, other.piece_);
    return *this;
  }
  ~Stream() { stop(); }

  /// Finds the next piece of text, which is not empty. Returns false at the end; see reason().
  bool next(std::string &piece) {
    if (!advance()) return false;
    piece = piece_;
    return true;
  }

  /// Why the text has ended. CBL_STOP_NONE before the end.
  cbl_stop_reason reason() const noexcept { return reason_; }

  /// Ends the generation now, not only when the stream is destroyed.
  void stop() noexcept {
    cbl_stop_reason reason = CBL_STOP_NONE;
    if (generation_ != 0) cbl_generation_end(session_, generation_, &reason);
    if (reason_ == CBL_STOP_NONE) reason_ = reason;
    generation_ = 0;
  }

  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = std::string;
    using difference_type = std::ptrdiff_t;
    using pointer = const std::string *;
    using reference = const std::string &;

    iterator() = default;
    explicit iterator(Stream *stream) : stream_(stream) { ++*this; }
    /// The piece. Valid until the iterator moves on.
    reference operator*() const noexcept { return stream_->piece_; }
    pointer operator->() const noexcept { return &stream_->piece_; }
    iterator &operator++() {
      if (!stream_->advance()) stream_ = nullptr;
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(const iterator &other) const noexcept { return stream_ == other.stream_; }
    bool operator!=(const iterator &other) const noexcept { return stream_ != other.stream_; }

   private:
    Stream *stream_ = nullptr;
  };
  /// Asks for the next piece. A stream can be walked only once.
  iterator begin() { return iterator(this); }
  iterator end() const noexcept { return iterator(); }

 private:
  friend class Session;
  Stream(cbl_session *session, std::uint64_t generation)
      : session_(session), generation_(generation) {}
  bool advance() {
    while (generation_ != 0 && reason_ == CBL_STOP_NONE) {
      cbl_step step;
      const cbl_status status =
          cbl_generation_next(session_, generation_, &step, sizeof step, &reason_);
      if (status != CBL_OK) {
        generation_ = 0;
        throw Error(status, cbl_session_error(session_));
      }
      if (step.length == 0) continue;
      piece_.assign(step.text, step.length);
      return true;
    }
    return false;
  }
  cbl_session *session_;
  std::uint64_t generation_;
  cbl_stop_reason reason_ = CBL_STOP_NONE;
  std::string piece_;
};

/// A sequence of tokens, and what is needed to continue it.
class Session {
 public:
  using Tokens = std::vector<std::uint32_t>;

  explicit Session(const Model &model) : Session(model, nullptr) {}
  Session(const Model &model, const Options &options) : Session(model, options.get()) {}

  /// Makes another session with the same tokens and the same options.
  Session fork() {
    cbl_session *made = nullptr;
    check(cbl_session_fork(get(), nullptr, &made));
    return Session(made);
  }

  /// Keeps the session's memory in RAM; throws CBL_NO_MEMORY if the system refuses.
  void lock_memory() { check(cbl_session_lock_memory(get())); }

  void reset() { check(cbl_session_reset(get())); }
  void rewind(std::size_t position) { check(cbl_session_rewind(get(), position)); }
  std::size_t position() const noexcept { return cbl_session_position(get()); }
  Tokens tokens() {
    const std::uint32_t *tokens = nullptr;
    std::size_t count = 0;
    check(cbl_session_tokens(get(), &tokens, &count));
    return Tokens(tokens, tokens + count);
  }

  void evaluate(const Tokens &tokens) {
    check(cbl_session_evaluate(get(), tokens.data(), tokens.size()));
  }
  /// A copy of the last token's logits.
  std::vector<float> logits() {
    const float *logits = nullptr;
    std::size_t count = 0;
    check(cbl_session_logits(get(), &logits, &count));
    return std::vector<float>(logits, logits + count);
  }
  std::uint32_t sample() { return sample_with(nullptr); }
  std::uint32_t sample(const Options &options) { return sample_with(options.get()); }

  /// Makes a stream that continues a text. It cannot be called on a temporary session, which would not outlive
  /// the stream.
  Stream stream(const std::string &prompt) & { return stream_with(prompt, nullptr); }
  Stream stream(const std::string &prompt, const Options &options) & {
    return stream_with(prompt, options.get());
  }
  /// As above, from a prompt of tokens.
  Stream stream(const Tokens &prompt) & { return stream_with(prompt, nullptr); }
  Stream stream(const Tokens &prompt, const Options &options) & {
    return stream_with(prompt, options.get());
  }

  /// Continues a text. `on_text` takes a `const std::string &` and returns whether to go on.
  template <typename OnText>
  cbl_stop_reason generate(const std::string &prompt, OnText &&on_text) {
    return generate_with(prompt, nullptr, on_text);
  }
  template <typename OnText>
  cbl_stop_reason generate(const std::string &prompt, const Options &options, OnText &&on_text) {
    return generate_with(prompt, options.get(), on_text);
  }
  /// As above, from a prompt of tokens.
  template <typename OnText>
  cbl_stop_reason generate(const Tokens &prompt, OnText &&on_text) {
    return generate_with(prompt, nullptr, on_text);
  }
  template <typename OnText>
  cbl_stop_reason generate(const Tokens &prompt, const Options &options, OnText &&on_text) {
    return generate_with(prompt, options.get(), on_text);
  }
  /// Continues tokens with tokens. `on_token` takes a `std::uint32_t` and returns whether to go on.
  template <typename OnToken>
  cbl_stop_reason generate_tokens(const Tokens &prompt, OnToken &&on_token) {
    return generate_tokens_with(prompt, nullptr, on_token);
  }
  template <typename OnToken>
  cbl_stop_reason generate_tokens(const Tokens &prompt, const Options &options, OnToken &&on_token) {
    return generate_tokens_with(prompt, options.get(), on_token);
  }

  /// Continues tokens; each step has a token, its text and its logits. `on_step` takes a `const cbl_step &` and
  /// returns whether to go on.
  template <typename OnStep>
  cbl_stop_reason generate_steps(const Tokens &prompt, OnStep &&on_step) {
    return generate_steps_with(prompt, nullptr, on_step);
  }
  template <typename OnStep>
  cbl_stop_reason generate_steps(const Tokens &prompt, const Options &options, OnStep &&on_step) {
    return generate_steps_with(prompt, options.get(), on_step);
  }
  /// Answers a conversation by the model's chat template. `on_text` is as for generate(). For the next turn,
  /// append the answer and the next message: only what is new is evaluated.
  template <typename OnText>
  cbl_chat_result chat(const std::vector<Message> &messages, OnText &&on_text) {
    return chat_with(messages, nullptr, on_text);
  }
  template <typename OnText>
  cbl_chat_result chat(const std::vector<Message> &messages, const Options &options, OnText &&on_text) {
    return chat_with(messages, options.get(), on_text);
  }

  /// Applies a template to a text. `on_text` is as for generate().
  template <typename OnText>
  cbl_template_result apply(const Template &how, const std::string &text, OnText &&on_text) {
    return apply_with(how, text, nullptr, on_text);
  }
  template <typename OnText>
  cbl_template_result apply(const Template &how, const std::string &text, const Options &options,
                            OnText &&on_text) {
    return apply_with(how, text, options.get(), on_text);
  }

  /// Appends tokens. `on_logits` is called for each token. It takes the position, the logits (a
  /// `const float *`) and their number, and returns whether it wants more. The session must be made with
  /// CBL_OPTION_ALL_LOGITS.
  template <typename OnLogits>
  void evaluate_each(const Tokens &tokens, OnLogits &&on_logits) {
    detail::Callback<OnLogits> callback = {on_logits, nullptr};
    const cbl_status status = cbl_session_evaluate_each(get(), tokens.data(), tokens.size(),
                                                        callback.on_logits, &callback);
    callback.rethrow();
    check(status);
  }

  /// Computes how probable continuations of a prompt are. The prompt comes after the tokens that the session
  /// holds, and stays in the session.
  std::vector<Score> score(const std::string &prompt, const std::vector<std::string> &continuations) {
    const std::vector<const char *> list = detail::list(continuations);
    std::vector<double> sums(list.size() + 1);
    std::vector<std::size_t> lengths(list.size() + 1);
    check(cbl_score(get(), nullptr, prompt.data(), prompt.size(), list.data(), list.size(),
                    sums.data(), lengths.data()));
    return scores(sums, lengths, list.size());
  }
  std::vector<Score> score(const Tokens &prompt, const std::vector<Tokens> &continuations) {
    const detail::Lists lists(continuations);
    const std::size_t count = continuations.size();
    std::vector<double> sums(count + 1);
    check(cbl_score_tokens(get(), prompt.data(), prompt.size(), lists.tokens.data(),
                           lists.lengths.data(), count, sums.data(), nullptr));
    return scores(sums, lists.lengths, count);
  }

  /// Computes the embedding of a text: a vector of length 1. The text replaces the tokens that the session
  /// holds.
  std::vector<float> embed(const std::string &text) { return embed_with(text, nullptr); }
  std::vector<float> embed(const std::string &text, const Options &options) {
    return embed_with(text, options.get());
  }
  std::vector<float> embed(const Tokens &tokens) { return embed_with(tokens, nullptr); }
  std::vector<float> embed(const Tokens &tokens, const Options &options) {
    return embed_with(tokens, options.get());
  }

  /// Finds the label that fits a text best. Replaces the tokens that the session holds.
  Classification classify(const Classifier &classifier, const std::string &text) {
    Classification found = {0, std::vector<double>(classifier.labels().size())};
    check(cbl_classify(get(), classifier.get(), text.data(), text.size(), &found.label,
                       found.probabilities.data(), found.probabilities.size()));
    return found;
  }

  /// May be called from any thread and from a signal handler.
  void cancel() const noexcept { cbl_session_cancel(get()); }
  void clear_cancel() const noexcept { cbl_session_clear_cancel(get()); }

  std::vector<unsigned char> save() {
    std::size_t size = 0;
    cbl_status status = cbl_session_save(get(), nullptr, 0, &size);
    std::vector<unsigned char> saved(size);
    if (status == CBL_BUFFER_TOO_SMALL) {
      status = cbl_session_save(get(), saved.data(), saved.size(), &size);
    }
    check(status);
    return saved;
  }
  void restore(const std::vector<unsigned char> &saved) {
    check(cbl_session_restore(get(), saved.data(), saved.size()));
  }
  /// Saves to a file that only its owner may read; see cbl_session_save_file().
  void save(const std::string &path) {
    check(cbl_session_save_file(get(), detail::ended(path, "a path")));
  }
  void restore(const std::string &path) {
    check(cbl_session_restore_file(get(), detail::ended(path, "a path")));
  }

  cbl_session_stats stats() {
    cbl_session_stats stats;
    check(cbl_session_get_stats(get(), &stats, sizeof stats));
    return stats;
  }

  cbl_session *get() const noexcept { return session_.get(); }

 private:
  explicit Session(cbl_session *made) : session_(made) {}
  Session(const Model &model, cbl_options *options) {
    char message[256];
    cbl_session *made = nullptr;
    detail::check(cbl_session_new(model.get(), options, &made, message, sizeof message), message);
    session_.reset(made);
  }
  void check(cbl_status status) {
    if (status != CBL_OK) throw Error(status, cbl_session_error(get()));
  }
  static std::vector<Score> scores(const std::vector<double> &sums,
                                   const std::vector<std::size_t> &lengths, std::size_t count) {
    std::vector<Score> scores;
    for (std::size_t i = 0; i < count; i++) scores.push_back({sums[i], lengths[i]});
    return scores;
  }
  std::uint32_t sample_with(const cbl_options *options) {
    std::uint32_t token = 0;
    check(cbl_session_sample(get(), options, &token));
    return token;
  }
  Stream stream_with(const std::string &prompt, const cbl_options *options) {
    std::uint64_t generation = 0;
    check(cbl_generation_begin(get(), options, prompt.data(), prompt.size(), &generation));
    return Stream(get(), generation);
  }
  Stream stream_with(const Tokens &prompt, const cbl_options *options) {
    std::uint64_t generation = 0;
    check(cbl_generation_begin_from_tokens(get(), options, prompt.data(), prompt.size(),
                                           &generation));
    return Stream(get(), generation);
  }
  template <typename OnText>
  cbl_stop_reason generate_with(const std::string &prompt, const cbl_options *options,
                                OnText &on_text) {
    return run(on_text, [&](detail::Callback<OnText> &callback, cbl_stop_reason *reason) {
      return cbl_generate(get(), options, prompt.data(), prompt.size(), callback.on_text, &callback,
                          reason);
    });
  }
  template <typename OnText>
  cbl_stop_reason generate_with(const Tokens &prompt, const cbl_options *options, OnText &on_text) {
    return run(on_text, [&](detail::Callback<OnText> &callback, cbl_stop_reason *reason) {
      return cbl_generate_from_tokens(get(), options, prompt.data(), prompt.size(), callback.on_text,
                                      &callback, reason);
    });
  }
  template <typename OnToken>
  cbl_stop_reason generate_tokens_with(const Tokens &prompt, const cbl_options *options,
                                       OnToken &on_token) {
    return run(on_token, [&](detail::Callback<OnToken> &callback, cbl_stop_reason *reason) {
      return cbl_generate_tokens(get(), options, prompt.data(), prompt.size(), callback.on_token,
                                 &callback, reason);
    });
  }
  template <typename OnStep>
  cbl_stop_reason generate_steps_with(const Tokens &prompt, const cbl_options *options,
                                      OnStep &on_step) {
    return run(on_step, [&](detail::Callback<OnStep> &callback, cbl_stop_reason *reason) {
      return cbl_generate_steps(get(), options, prompt.data(), prompt.size(), callback.on_step,
                                &callback, reason);
    });
  }
  // Runs a generation that calls `function`.
  template <typename Function, typename Call>
  cbl_stop_reason run(Function &function, Call call) {
    detail::Callback<Function> callback = {function, nullptr};
    cbl_stop_reason reason = CBL_STOP_NONE;
    const cbl_status status = call(callback, &reason);
    callback.rethrow();
    check(status);
    return reason;
  }
  template <typename OnText>
  cbl_chat_result chat_with(const std::vector<Message> &messages, const cbl_options *options,
                            OnText &on_text) {
    const detail::Conversation c(messages);
    detail::Callback<OnText> callback = {on_text, nullptr};
    cbl_chat_result result;
    const cbl_status status =
        cbl_chat_answer(get(), options, c.roles.data(), c.contents.data(), messages.size(), callback.on_text,
                        &callback, &result, sizeof result);
    callback.rethrow();
    check(status);
    return result;
  }
  template <typename OnText>
  cbl_template_result apply_with(const Template &how, const std::string &text,
                                 const cbl_options *options, OnText &on_text) {
    detail::Callback<OnText> callback = {on_text, nullptr};
    cbl_template_result result;
    const cbl_status status =
        cbl_apply_template(get(), how.get(), options, text.data(), text.size(), callback.on_text,
                           &callback, &result, sizeof result);
    callback.rethrow();
    check(status);
    return result;
  }
  std::vector<float> embed_with(const std::string &text, const cbl_options *options) {
    return embedding([&](float *place, std::size_t room, std::size_t *count) {
      return cbl_embed(get(), options, text.data(), text.size(), place, room, count);
    });
  }
  std::vector<float> embed_with(const Tokens &tokens, const cbl_options *options) {
    return embedding([&](float *place, std::size_t room, std::size_t *count) {
      return cbl_embed_tokens(get(), options, tokens.data(), tokens.size(), place, room, count);
    });
  }
  template <typename Embed>
  std::vector<float> embedding(Embed embed) {
    std::size_t width = 0;
    cbl_status status = embed(nullptr, 0, &width);
    std::vector<float> embedding(width);
    if (status == CBL_BUFFER_TOO_SMALL) status = embed(embedding.data(), width, &width);
    check(status);
    return embedding;
  }
  std::unique_ptr<cbl_session, detail::Free> session_;
};

/// The result of one prompt of a batch: its status, and why its text ended.
struct Outcome {
  cbl_status status;
  cbl_stop_reason reason;
};

/// The texts that continue several prompts, step by step. Batch::stream() makes it. It works only while you ask
/// for the next step.
///
///     BatchStream stream = batch.stream(prompts, options);
///     for (cbl_batch_step step; stream.next(step);) texts[step.index].append(step.text, step.length);
///
/// Any other call that changes the batch ends the generation. The batch must outlive the stream.
class BatchStream {
 public:
  BatchStream(BatchStream &&other) noexcept : batch_(other.batch_), generation_(other.generation_) {
    other.generation_ = 0;
  }
  BatchStream &operator=(BatchStream &&other) noexcept {
    std::swap(batch_, other.batch_);
    std::swap(generation_, other.generation_);
    return *this;
  }
  ~BatchStream() { end(); }

  /// Makes the next step of any text. It is valid until the next call on the batch. Returns false when all
  /// texts are done.
  bool next(cbl_batch_step &step) {
    bool more = false;
    check(cbl_batch_next(batch_, generation_, &step, sizeof step, &more));
    return more;
  }
  /// Ends the text of one prompt. The other texts go on.
  void stop(std::size_t index) { check(cbl_batch_stop(batch_, generation_, index)); }
  /// Ends the generation now, not only when the stream is destroyed.
  void end() noexcept {
    if (generation_ != 0) cbl_batch_end(batch_, generation_);
    generation_ = 0;
  }

 private:
  friend class Batch;
  BatchStream(cbl_batch *batch, std::uint64_t generation) : batch_(batch), generation_(generation) {}
  void check(cbl_status status) {
    if (status != CBL_OK) throw Error(status, cbl_batch_error(batch_));
  }
  cbl_batch *batch_;
  std::uint64_t generation_;
};

/// Several sequences of tokens that are evaluated together, numbered from 0.
class Batch {
 public:
  using Tokens = std::vector<std::uint32_t>;

  Batch(const Model &model, std::size_t sequences) : Batch(model, sequences, nullptr) {}
  Batch(const Model &model, std::size_t sequences, const Options &options)
      : Batch(model, sequences, options.get()) {}

  /// Keeps the batch's memory in RAM; throws CBL_NO_MEMORY if the system refuses.
  void lock_memory() { check(cbl_batch_lock_memory(get())); }

  void rewind(std::size_t sequence, std::size_t position) {
    check(cbl_batch_rewind(get(), sequence, position));
  }
  Tokens tokens(std::size_t sequence) {
    const std::uint32_t *tokens = nullptr;
    std::size_t count = 0;
    check(cbl_batch_tokens(get(), sequence, &tokens, &count));
    return Tokens(tokens, tokens + count);
  }
  /// Appends `tokens[i]` to sequence `sequences[i]`.
  void evaluate(const std::vector<std::size_t> &sequences, const std::vector<Tokens> &tokens) {
    const detail::Lists lists(tokens);
    if (sequences.size() != tokens.size()) {
      throw Error(CBL_BAD_ARGUMENT, "there is not a list of tokens for each sequence");
    }
    check(cbl_batch_evaluate(get(), sequences.data(), lists.lengths.data(), sequences.size(),
                             lists.tokens.data()));
  }
  /// A copy of the logits of a sequence's last token.
  std::vector<float> logits(std::size_t sequence) {
    const float *logits = nullptr;
    std::size_t count = 0;
    check(cbl_batch_logits(get(), sequence, &logits, &count));
    return std::vector<float>(logits, logits + count);
  }
  std::uint32_t sample(std::size_t sequence) { return sample_with(sequence, nullptr); }
  std::uint32_t sample(std::size_t sequence, const Options &options) {
    return sample_with(sequence, options.get());
  }

  /// Makes a stream that continues any number of prompts.
  BatchStream stream(const std::vector<std::string> &prompts) & { return stream_with(prompts, nullptr); }
  BatchStream stream(const std::vector<std::string> &prompts, const Options &options) & {
    return stream_with(prompts, options.get());
  }

  /// Continues any number of prompts. `on_text` takes a prompt's index and a `const std::string &`, and returns
  /// whether that text is to go on. A prompt that cannot be continued does not disturb the others; see its
  /// outcome.
  template <typename OnText>
  std::vector<Outcome> generate(const std::vector<std::string> &prompts, OnText &&on_text) {
    return generate_with(prompts, nullptr, on_text);
  }
  template <typename OnText>
  std::vector<Outcome> generate(const std::vector<std::string> &prompts, const Options &options,
                                OnText &&on_text) {
    return generate_with(prompts, options.get(), on_text);
  }
  /// As above, in tokens. `on_token` takes a prompt's index and a `std::uint32_t`.
  template <typename OnToken>
  std::vector<Outcome> generate_tokens(const std::vector<Tokens> &prompts, OnToken &&on_token) {
    return generate_tokens_with(prompts, nullptr, on_token);
  }
  template <typename OnToken>
  std::vector<Outcome> generate_tokens(const std::vector<Tokens> &prompts, const Options &options,
                                       OnToken &&on_token) {
    return generate_tokens_with(prompts, options.get(), on_token);
  }

  /// May be called from any thread and from a signal handler.
  void cancel() const noexcept { cbl_batch_cancel(get()); }
  void clear_cancel() const noexcept { cbl_batch_clear_cancel(get()); }

  cbl_batch *get() const noexcept { return batch_.get(); }

 private:
  Batch(const Model &model, std::size_t sequences, cbl_options *options) {
    char message[256];
    cbl_batch *made = nullptr;
    detail::check(cbl_batch_new(model.get(), options, sequences, &made, message, sizeof message),
                  message);
    batch_.reset(made);
  }
  void check(cbl_status status) {
    if (status != CBL_OK) throw Error(status, cbl_batch_error(get()));
  }
  BatchStream stream_with(const std::vector<std::string> &prompts, const cbl_options *options) {
    std::uint64_t generation = 0;
    const std::vector<const char *> list = detail::list(prompts);
    check(cbl_batch_begin(get(), options, list.data(), list.size(), &generation));
    return BatchStream(get(), generation);
  }
  std::uint32_t sample_with(std::size_t sequence, const cbl_options *options) {
    std::uint32_t token = 0;
    check(cbl_batch_sample(get(), sequence, options, &token));
    return token;
  }
  template <typename OnText>
  std::vector<Outcome> generate_with(const std::vector<std::string> &prompts,
                                     const cbl_options *options, OnText &on_text) {
    detail::Callback<OnText> callback = {on_text, nullptr};
    const std::vector<const char *> list = detail::list(prompts);
    return run(list.size(), callback, [&](cbl_status *statuses, cbl_stop_reason *reasons) {
      return cbl_batch_generate(get(), options, list.data(), list.size(), callback.on_batch_text,
                                &callback, statuses, reasons);
    });
  }
  template <typename OnToken>
  std::vector<Outcome> generate_tokens_with(const std::vector<Tokens> &prompts,
                                            const cbl_options *options, OnToken &on_token) {
    detail::Callback<OnToken> callback = {on_token, nullptr};
    const detail::Lists lists(prompts);
    return run(prompts.size(), callback, [&](cbl_status *statuses, cbl_stop_reason *reasons) {
      return cbl_batch_generate_tokens(get(), options, lists.tokens.data(), lists.lengths.data(),
                                       prompts.size(), callback.on_batch_token, &callback, statuses,
                                       reasons);
    });
  }
  // Results are not written if the call as a whole fails.
  template <typename Called, typename Call>
  std::vector<Outcome> run(std::size_t count, Called &callback, Call call) {
    const cbl_status unwritten = -1;
    std::vector<cbl_status> statuses(count + 1, unwritten);
    std::vector<cbl_stop_reason> reasons(count + 1, CBL_STOP_NONE);
    const cbl_status status = call(statuses.data(), reasons.data());
    callback.rethrow();
    if (count == 0 || statuses[0] == unwritten) check(status);
    std::vector<Outcome> outcomes;
    for (std::size_t i = 0; i < count; i++) outcomes.push_back({statuses[i], reasons[i]});
    return outcomes;
  }
  std::unique_ptr<cbl_batch, detail::Free> batch_;
};

}  // namespace cerebellum

#endif
