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

  // A path is not cut at a zero byte.
  const std::string cut("/nowhere\0/else", 14);
  for (int i = 0; i < 3; i++) {
    try {
      if (i == 0) Model missing(cut);
      if (i == 1) moved.save(cut);
      if (i == 2) moved.restore(cut);
      CHECK(false);
    } catch (const Error &error) {
      CHECK(error.status() == CBL_BAD_ARGUMENT && std::string(error.what()).find("zero") != std::string::npos);
    }
  }

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

  // Steps, biases, probabilities.
  session = Session(model, options);
  std::string told;
  double log_probabilities = 0;
  session.generate_steps(prompt, options, [&](const cbl_step &step) {
    told.append(step.text, step.length);
    if (step.token < 0) return true;
    const auto token = static_cast<std::uint32_t>(step.token);
    CHECK(top_tokens(step.logits, step.logits_count, 3)[0].token == token);
    log_probabilities += log_probability(step.logits, step.logits_count, token);
    return true;
  });
  CHECK(told == text && log_probabilities < 0);
  session.reset();
  session.evaluate(prompt);
  CHECK(top_tokens(session.logits(), 2).size() == 2);
  Options biased;
  CHECK(session.sample(biased.set_logit_bias(7, 100)) == 7);
  CHECK(session.sample(biased.clear_logit_biases()) == fork.sample(options));

  // On demand: the same text. Leaving the loop, by an exception too, ends the generation.
  Session asked(model, options);
  std::string by_loop, piece;
  for (const std::string &it : asked.stream("Once upon a time", options)) by_loop += it;
  CHECK(by_loop == text);
  asked.reset();
  by_loop.clear();
  {
    Stream stream = asked.stream(prompt, options);
    CHECK(stream.reason() == CBL_STOP_NONE);
    while (stream.next(piece)) by_loop += piece;
    CHECK(by_loop == text && stream.reason() == CBL_STOP_MAX_TOKENS && !stream.next(piece));
    CHECK(stream.begin() == stream.end());
  }
  asked.reset();
  try {
    for (const std::string &it : asked.stream(prompt, options)) throw std::string(it);
    CHECK(false);
  } catch (const std::string &it) {
    CHECK(!it.empty() && text.compare(0, it.size(), it) == 0);
  }
  CHECK(asked.stats().stop_reason == CBL_STOP_CANCELLED);
  asked.cancel();
  for (const std::string &it : asked.stream(prompt, options)) CHECK(it.empty());
  asked.reset();
  {
    // An older stream does not end a later one, and says that it is over itself.
    Stream older = asked.stream(prompt, options);
    CHECK(older.next(piece));
    Stream later = asked.stream(prompt, options);
    try {
      older.next(piece);
      CHECK(false);
    } catch (const Error &error) {
      CHECK(error.status() == CBL_NO_GENERATION);
    }
    older = asked.stream(prompt, options);
    Stream moved_stream = std::move(older);
    older.stop();
    CHECK(moved_stream.next(piece) && !older.next(piece));
    moved_stream.stop();
    CHECK(moved_stream.reason() == CBL_STOP_CANCELLED && !moved_stream.next(piece));
  }
  asked.evaluate({5});
  try {
    asked.stream("\x80");
    CHECK(false);
  } catch (const Error &error) {
    CHECK(error.status() == CBL_INVALID_UTF8);
  }

  // Without options: 128 tokens, or as many as fit.
  std::size_t defaults = 0;
  auto count_piece = [&](const std::string &) { return ++defaults, true; };
  asked.reset();
  CHECK(asked.generate("Once upon a time", count_piece) != CBL_STOP_NONE && defaults > 0);
  asked.reset();
  CHECK(asked.generate(prompt, count_piece) != CBL_STOP_NONE);
  asked.reset();
  CHECK(asked.generate_tokens(prompt, [](std::uint32_t) { return false; }) == CBL_STOP_CANCELLED);
  asked.reset();
  CHECK(asked.generate_steps(prompt, [](const cbl_step &) { return false; }) == CBL_STOP_CANCELLED);
  asked.reset();
  for (const std::string &it : asked.stream(prompt)) by_loop = it;
  asked.reset();
  asked.evaluate(prompt);
  CHECK(asked.sample() == fork.sample(options));
  CHECK(asked.embed(prompt) == asked.embed("Once upon a time"));
  CHECK(model.plan().total_bytes > model.plan(options).total_bytes);
  CHECK(model.plan(2).cache_bytes == 2 * model.plan().cache_bytes);

  // A part of a file, and pages that stay in memory if the system allows it.
  std::FILE *file = std::fopen(arguments[1], "rb");
  CHECK(file != nullptr);
  const auto whole = model.info().file_bytes;
  const Model part = Model::from_fd(fileno(file), 0, whole);
  CHECK(part.info().file_bytes == whole && part.tokenize("Once upon a time") == prompt);
  try {
    Model::from_fd(fileno(file), 64, whole, options);
    CHECK(false);
  } catch (const Error &error) {
    CHECK(error.status() == CBL_BAD_ARGUMENT);
  }
  std::fclose(file);
  alignas(64) static char fast[1 << 16];
  const auto copied = part.copy_weights(fast, sizeof fast);
  CHECK(copied > 0 && copied <= sizeof fast);
  try {
    part.copy_weights(fast, sizeof fast);
    CHECK(false);
  } catch (const Error &error) {
    CHECK(error.status() == CBL_BAD_ARGUMENT);
  }
  try {
    part.lock_memory();
    asked.lock_memory();
    Batch(part, 1, options).lock_memory();
  } catch (const Error &error) {
    CHECK(error.status() == CBL_NO_MEMORY);
  }

  // Scores, embeddings, classes, templates.
  Options all;
  all.set(CBL_OPTION_CONTEXT, 64).set(CBL_OPTION_ALL_LOGITS, true);
  Session tasks(model, all);
  const auto scores = tasks.score("Once upon a time", {" there was", " bicycle"});
  CHECK(scores.size() == 2 && scores[0].tokens == 2);
  CHECK(scores[0].log_probability > scores[1].log_probability);
  tasks.reset();
  const auto by_tokens = tasks.score(prompt, {model.tokenize(" there was"), model.tokenize(" bicycle")});
  CHECK(by_tokens[0].log_probability == scores[0].log_probability && by_tokens[0].tokens == 2);
  CHECK(tasks.embed("set an alarm", all).size() == model.info().embedding);
  CHECK(tasks.embed("set an alarm", all) == tasks.embed(model.tokenize("set an alarm"), all));
  std::size_t rows = 0;
  tasks.reset();
  tasks.evaluate_each(prompt, [&](std::size_t position, const float *, std::size_t count) {
    CHECK(position == rows && count == model.info().vocabulary);
    return ++rows, true;
  });
  CHECK(rows == prompt.size());
  Options shown;
  shown.add_example("it rains", "weather").set(CBL_OPTION_CALIBRATION, CBL_CALIBRATION_CONTENT_FREE);
  const Classifier classifier(model, {"weather", "alarm"}, shown);
  const Classification found = tasks.classify(classifier, "wake me at six");
  CHECK(classifier.labels()[found.label] == "alarm" && found.probabilities[1] > 0.5);
  const std::vector<Message> messages = {{"user", "Hello"}};
  std::string said;
  Options goes_on;
  goes_on.set(CBL_OPTION_MAX_TOKENS, 8).set(CBL_OPTION_IGNORE_END_OF_TEXT, true);
  const auto answered = tasks.chat(messages, goes_on, [&](const std::string &piece) { return said += piece, true; });
  CHECK(answered.prompt_tokens + answered.reused_tokens == model.chat_tokens(messages).size());
  CHECK(answered.generated_tokens == 8 && !said.empty());
  const Template own = Template::from_text("max-tokens: 4\n---\n{text} And then");
  std::string applied;
  const auto applied_result = tasks.apply(own, "He is old.", [&](const std::string &piece) {
    return applied += piece, true;
  });
  CHECK(applied_result.parts == 1 && applied_result.generated_tokens == 4 && !applied.empty());
  try {
    Template unknown(model, "sing");
    CHECK(false);
  } catch (const Error &error) {
    CHECK(std::string(error.what()).find("translate") != std::string::npos);
  }
  try {
    Classifier damaged(model, {std::string("a\0b", 3)});
    CHECK(false);
  } catch (const Error &error) {
    CHECK(error.status() == CBL_BAD_ARGUMENT);
  }

  // Batches go on as sessions do.
  Batch batch(model, 2, options);
  CHECK(model.plan(options, 2).cache_bytes == 2 * model.plan(options).cache_bytes);
  std::vector<std::string> texts(3);
  const auto outcomes = batch.generate({"Once upon a time", std::string(999, 'x'), "Once upon a time"},
                                       options, [&](std::size_t i, const std::string &piece) {
                                         return texts[i] += piece, true;
                                       });
  CHECK(outcomes.size() == 3 && outcomes[0].reason == CBL_STOP_MAX_TOKENS);
  CHECK(outcomes[1].status == CBL_CONTEXT_FULL && texts[0] == text && texts[2] == text);
  {
    std::vector<std::string> streamed(3);
    BatchStream all = batch.stream({"Once upon a time", "A dog", "Once upon a time"}, options);
    for (cbl_batch_step step; all.next(step);) {
      streamed[step.index].append(step.text, step.length);
      if (step.index == 1 && step.token >= 0) all.stop(1);
    }
    CHECK(streamed[0] == text && streamed[2] == text);
    BatchStream later = batch.stream({"A dog"});
    all = std::move(later); /* Ends the first, which is over. */
    cbl_batch_step step;
    CHECK(all.next(step) && step.index == 0);
    batch.rewind(0, 0);
    try {
      all.next(step);
      CHECK(false);
    } catch (const Error &error) {
      CHECK(error.status() == CBL_NO_GENERATION);
    }
  }
  for (std::size_t i = 0; i < 2; i++) batch.rewind(i, 0);
  batch.evaluate({0, 1}, {prompt, {5, 6}});
  CHECK(batch.tokens(0) == prompt && batch.sample(0, options) == fork.sample(options));
  CHECK(batch.logits(0) == fork.logits());
  std::size_t told_tokens = 0;
  batch.generate_tokens({prompt}, options, [&](std::size_t, std::uint32_t) { return ++told_tokens, true; });
  CHECK(told_tokens == 12);
  CHECK(batch.generate({"a"}, [](std::size_t, const std::string &) { return false; })[0].reason ==
        CBL_STOP_CANCELLED);
  CHECK(batch.generate_tokens({prompt}, [](std::size_t, std::uint32_t) { return false; }).size() == 1);
  for (std::size_t i = 0; i < 2; i++) batch.rewind(i, 0);
  batch.cancel();
  batch.clear_cancel();
  batch.evaluate({0}, {prompt});
  CHECK(batch.sample(0) == fork.sample(options));
  try {
    batch.generate({"a"}, options, [](std::size_t, const std::string &) -> bool { throw Stop(); });
    CHECK(false);
  } catch (const Stop &) {
  }
  try {
    batch.evaluate({0}, {});
    CHECK(false);
  } catch (const Error &) {
  }

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
