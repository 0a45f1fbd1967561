// Tells stories with one beginning: the beginning is evaluated once, every story is a fork of it.
//
//     stories MODEL.cbl [COUNT]
#include <cstdlib>
#include <exception>
#include <iostream>

#include <cerebellum.hpp>

int main(int count, char **arguments) {
  if (count < 2) {
    std::cerr << "usage: " << arguments[0] << " MODEL.cbl [COUNT]\n";
    return 2;
  }
  try {
    cerebellum::Options options;
    options.set(CBL_OPTION_MAX_TOKENS, 40).set(CBL_OPTION_TEMPERATURE, 0.8).add_stop("\n");
    const cerebellum::Model model(arguments[1]);
    cerebellum::Session beginning(model, options);
    beginning.evaluate(model.tokenize("Once upon a time"));

    const int stories = count > 2 ? std::atoi(arguments[2]) : 3;
    for (int story = 0; story < stories; story++) {
      options.set(CBL_OPTION_SEED, story);
      cerebellum::Session session = beginning.fork();
      std::cout << "Once upon a time, there was";
      for (const std::string &text : session.stream(model.tokenize(", there was"), options)) {
        std::cout << text << std::flush;
      }
      std::cout << "\n";
    }
  } catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
