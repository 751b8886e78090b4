// A small network with random weights on the CPU, for tests of what stands on top of the seam.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "charrnn/checkpoint.h"
#include "charrnn/vocabulary.h"
#include "devices/registry.h"
#include "model/initialize.h"

namespace charrnn::testing {

inline Vocabulary small_vocabulary() { return Vocabulary::of("\n abcdefghi"); }  // V = 11

inline ModelConfig small_model(Cell cell) {
  ModelConfig model;
  model.cell = cell;
  model.layers = 2;
  model.hidden = 13;
  model.init.scale = 0.7;  // far from uniform predictions
  return model;
}

struct SmallNetwork {
  Vocabulary vocabulary = small_vocabulary();
  ModelConfig model;
  std::vector<float> parameters;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Network> network;

  explicit SmallNetwork(Cell cell = Cell::kLstm) : model(small_model(cell)) {
    backend = open_backend({.device = "cpu", .threads = 1});
    const NetworkShape shape{cell, model.layers, model.hidden, vocabulary.size()};
    network = backend->make_network(shape, Precision::kFp32);
    parameters.resize(network->layout().arena_size());
    initialize_parameters(network->layout(), model, 5, parameters);
    network->write(Arena::kParameters, parameters);
  }

  Checkpoint checkpoint() const {
    Checkpoint checkpoint;
    checkpoint.config.model = model;
    checkpoint.config.corpus.path = "nowhere.txt";
    checkpoint.vocabulary = vocabulary;
    checkpoint.parameters = parameters;
    checkpoint.step = 7;
    checkpoint.validation_nats = 2.25;
    return checkpoint;
  }
};

/// A text over small_vocabulary() without much order.
inline std::string small_text(std::size_t characters) {
  const std::string alphabet = "\n abcdefghi";
  std::string text;
  Rng random(3, 99);
  for (std::size_t i = 0; i < characters; ++i) text += alphabet[random.next_u32() % alphabet.size()];
  return text;
}

}  // namespace charrnn::testing
