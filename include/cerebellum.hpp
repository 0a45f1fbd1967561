// cerebellum.hpp: the C interface (cerebellum.h) as C++11 classes that free themselves and throw.
//
// A Model may be shared by threads, a Session is for one thread at a time; the comments of the C
// functions say the rest. Callbacks may throw: the generation stops and the exception goes on.
#ifndef CEREBELLUM_HPP
#define CEREBELLUM_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cerebellum.h"

namespace cerebellum {

/// What a call of the C interface failed with.
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
};

// Carries an exception of the callback's around the C frames.
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
  bool with_text(const char *text, std::size_t length) noexcept {
    try {
      return function(std::string(text, length));
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }
  static bool on_token(void *self, std::uint32_t token) {
    return static_cast<Callback *>(self)->call(token);
  }
  void rethrow() {
    if (thrown) std::rethrow_exception(thrown);
  }
};

}  // namespace detail

/// Options for models, sessions and generations.
class Options {
 public:
  Options() {
    cbl_options *made = nullptr;
    detail::check(cbl_options_new(&made));
    options_.reset(made);
  }

  /// Sets an option of kind int,
  template <typename Int, typename std::enable_if<std::is_integral<Int>::value, int>::type = 0>
  Options &set(std::int32_t key, Int value) {
    return check(cbl_options_set_int(get(), key, static_cast<std::int64_t>(value)));
  }
  /// float,
  Options &set(std::int32_t key, double value) {
    return check(cbl_options_set_float(get(), key, value));
  }
  /// string.
  Options &set(std::int32_t key, const std::string &value) {
    return check(cbl_options_set_string(get(), key, value.data(), value.size()));
  }
  Options &add_stop(const std::string &stop) {
    return check(cbl_options_add_stop(get(), stop.data(), stop.size()));
  }
  Options &clear_stops() { return check(cbl_options_clear_stops(get())); }

  /// The C handle, for everything else: log, arena, pool.
  cbl_options *get() const noexcept { return options_.get(); }

 private:
  Options &check(cbl_status status) {
    if (status != CBL_OK) throw Error(status, cbl_options_error(get()));
    return *this;
  }
  std::unique_ptr<cbl_options, detail::Free> options_;
};

/// A model that is open.
class Model {
 public:
  explicit Model(const std::string &path) : Model(path, nullptr) {}
  Model(const std::string &path, const Options &options) : Model(path, options.get()) {}

  /// A model in memory that the caller keeps, on a 64-byte boundary.
  static Model from_memory(const void *data, std::size_t size) {
    char message[256];
    cbl_model *made = nullptr;
    detail::check(cbl_model_open_memory(data, size, nullptr, &made, message, sizeof message),
                  message);
    return Model(made);
  }

  cbl_model_info info() const {
    cbl_model_info info;
    detail::check(cbl_model_get_info(get(), &info, sizeof info));
    return info;
  }
  cbl_memory_plan plan(const Options &options) const {
    char message[256];
    cbl_memory_plan plan;
    detail::check(cbl_model_plan(get(), options.get(), &plan, sizeof plan, message, sizeof message),
                  message);
    return plan;
  }
  void verify() const {
    char message[256];
    detail::check(cbl_model_verify(get(), message, sizeof message), message);
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

  cbl_model *get() const noexcept { return model_.get(); }

 private:
  explicit Model(cbl_model *made) : model_(made) {}
  Model(const std::string &path, cbl_options *options) {
    char message[256];
    cbl_model *made = nullptr;
    detail::check(cbl_model_open(path.c_str(), options, &made, message, sizeof message), message);
    model_.reset(made);
  }
  std::vector<std::uint32_t> tokenize(const std::string &text, cbl_options *options) const {
    char message[256];
    std::vector<std::uint32_t> tokens(text.size());
    std::size_t count = 0;
    detail::check(cbl_model_tokenize(get(), options, text.data(), text.size(), tokens.data(),
                                     tokens.size(), &count, message, sizeof message),
                  message);
    tokens.resize(count);
    return tokens;
  }
  std::unique_ptr<cbl_model, detail::Free> model_;
};

/// A sequence of tokens and what it takes to continue it.
class Session {
 public:
  using Tokens = std::vector<std::uint32_t>;

  explicit Session(const Model &model) : Session(model, nullptr) {}
  Session(const Model &model, const Options &options) : Session(model, options.get()) {}

  /// Another session with the same tokens, made as this one was.
  Session fork() {
    cbl_session *made = nullptr;
    check(cbl_session_fork(get(), nullptr, &made));
    return Session(made);
  }

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
  std::uint32_t sample(const Options &options) {
    std::uint32_t token = 0;
    check(cbl_session_sample(get(), options.get(), &token));
    return token;
  }

  /// Continues a text; `on_text` takes a `const std::string &` and returns whether to go on.
  template <typename OnText>
  cbl_stop_reason generate(const std::string &prompt, const Options &options, OnText &&on_text) {
    detail::Callback<OnText> callback = {on_text, nullptr};
    cbl_stop_reason reason = CBL_STOP_NONE;
    const cbl_status status = cbl_generate(get(), options.get(), prompt.data(), prompt.size(),
                                           callback.on_text, &callback, &reason);
    callback.rethrow();
    check(status);
    return reason;
  }
  /// The same from a prompt of tokens.
  template <typename OnText>
  cbl_stop_reason generate(const Tokens &prompt, const Options &options, OnText &&on_text) {
    detail::Callback<OnText> callback = {on_text, nullptr};
    cbl_stop_reason reason = CBL_STOP_NONE;
    const cbl_status status = cbl_generate_from_tokens(
        get(), options.get(), prompt.data(), prompt.size(), callback.on_text, &callback, &reason);
    callback.rethrow();
    check(status);
    return reason;
  }
  /// Tokens from tokens; `on_token` takes a `std::uint32_t` and returns whether to go on.
  template <typename OnToken>
  cbl_stop_reason generate_tokens(const Tokens &prompt, const Options &options, OnToken &&on_token) {
    detail::Callback<OnToken> callback = {on_token, nullptr};
    cbl_stop_reason reason = CBL_STOP_NONE;
    const cbl_status status = cbl_generate_tokens(
        get(), options.get(), prompt.data(), prompt.size(), callback.on_token, &callback, &reason);
    callback.rethrow();
    check(status);
    return reason;
  }

  /// From any thread, or a signal handler.
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
  void save(const std::string &path) { check(cbl_session_save_file(get(), path.c_str())); }
  void restore(const std::string &path) { check(cbl_session_restore_file(get(), path.c_str())); }

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
  std::unique_ptr<cbl_session, detail::Free> session_;
};

}  // namespace cerebellum

#endif
