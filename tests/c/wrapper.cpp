// What the C++ wrapper promises. Usage: wrapper MODEL
#include <cerebellum.hpp>

#include <cstdio>
#include <cstdlib>
#include <thread>

#define CHECK(condition) \
  if (!(condition)) std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition), std::exit(1)

struct Stop {};

int main(int, char **arguments) {
  using namespace cerebellum;
  Options options;
  options.set(CBL_OPTION_CONTEXT, 64).set(CBL_OPTION_MAX_TOKENS, 12).set(CBL_OPTION_TEMPERATURE, 0.0);
  options.set(CBL_OPTION_IGNORE_END_OF_TEXT, true);
  Model model(arguments[1]);
  CHECK(model.info().has_tokenizer && model.plan(options).total_bytes > 0);
  model.verify();
  const auto prompt = model.tokenize("Once upon a time");
  CHECK(model.detokenize(prompt) == "Once upon a time");

  Session session(model, options);
  std::string text, same;
  auto append = [&](const std::string &piece) { return text += piece, true; };
  CHECK(session.generate("Once upon a time", options, append) == CBL_STOP_MAX_TOKENS);
  session.reset();
  session.generate(prompt, options, [&](const std::string &piece) { return same += piece, true; });
  CHECK(text == same && !text.empty());

  // Moves; forks and restores go on alike.
  session.reset();
  session.evaluate(prompt);
  Session moved = std::move(session), fork = moved.fork();
  const auto saved = moved.save();
  Session restored(model, options);
  restored.restore(saved);
  CHECK(restored.tokens() == prompt && fork.logits() == restored.logits());
  CHECK(moved.sample(options) == fork.sample(options));

  // Exceptions: the library's, and the callback's.
  try {
    Model missing("/nowhere");
    CHECK(false);
  } catch (const Error &error) {
    CHECK(error.status() == CBL_IO && std::string(error.what()).find("/nowhere") != std::string::npos);
  }
  try {
    moved.generate_tokens({5, 6}, options, [](std::uint32_t) -> bool { throw Stop(); });
    CHECK(false);
  } catch (const Stop &) {
  }
  moved.reset();
  moved.evaluate(prompt);

  // Cancelled from another thread.
  options.set(CBL_OPTION_MAX_TOKENS, 1 << 20);
  std::thread other([&] { restored.cancel(); });
  cbl_stop_reason reason = CBL_STOP_NONE;
  while (reason != CBL_STOP_CANCELLED) {
    restored.reset();
    reason = restored.generate_tokens(prompt, options, [](std::uint32_t) { return true; });
  }
  other.join();
}
