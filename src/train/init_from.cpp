#include "train/init_from.h"

#include <algorithm>

#include "charrnn/checkpoint.h"
#include "charrnn/error.h"

namespace charrnn {

namespace {

std::string list_of(const std::vector<std::uint8_t>& bytes) {
  constexpr std::size_t kShown = 12;
  std::string text;
  for (std::size_t i = 0; i < std::min(bytes.size(), kShown); ++i) text += (i == 0 ? "" : ", ") + printable(bytes[i]);
  if (bytes.size() > kShown) text += ", ...";
  return text;
}

}  // namespace

std::vector<std::string> take_weights(const std::filesystem::path& run_or_checkpoint, const ParameterLayout& layout,
                                      const Vocabulary& vocabulary, std::span<float> arena) {
  const std::filesystem::path folder = resolve_checkpoint(run_or_checkpoint).folder;
  const Checkpoint from = load_checkpoint(folder, LoadState::kNo);
  const NetworkShape here = layout.shape(), there = from.shape();
  if (here.cell != there.cell || here.layers != there.layers || here.hidden != there.hidden) {
    throw ConfigError("init_from: " + folder.string() + " has " + std::to_string(there.layers) + " layers of " +
                      std::to_string(there.hidden) + (here.cell == there.cell ? "" : " of another cell") +
                      ", this model " + std::to_string(here.layers) + " of " + std::to_string(here.hidden) +
                      "; set model.cell, model.layers and model.hidden to the checkpoint's");
  }
  const ParameterLayout other(there);
  const float* const source = from.parameters.data();
  const auto V = static_cast<std::size_t>(here.vocabulary), V_from = static_cast<std::size_t>(there.vocabulary);
  const auto H = static_cast<std::size_t>(here.hidden);

  for (std::size_t i = 0; i < layout.tensors().size(); ++i) {  // all but what a vocabulary's size shows in
    const ParameterTensor &to = layout.tensors()[i], &with = other.tensors()[i];
    if (i == 0 || to.name == "head.weight" || to.name == "head.bias") continue;
    std::copy_n(source + with.offset, with.count(), arena.data() + to.offset);
  }
  std::vector<std::uint8_t> fresh, dropped;
  for (std::size_t id = 0; id < V; ++id) {
    const std::uint8_t byte = vocabulary.byte(static_cast<TokenId>(id));
    const TokenId known = from.vocabulary.find(byte);
    if (known < 0) {
      fresh.push_back(byte);
      continue;
    }
    const auto old = static_cast<std::size_t>(known);
    for (std::size_t row = 0; row < layout.weight_ih(0).rows; ++row) {
      arena[layout.weight_ih(0).offset + row * V + id] = source[other.weight_ih(0).offset + row * V_from + old];
    }
    std::copy_n(source + other.head_weight().offset + old * H, H, arena.data() + layout.head_weight().offset + id * H);
    arena[layout.head_bias().offset + id] = source[other.head_bias().offset + old];
  }
  for (const std::uint8_t byte : from.vocabulary.bytes()) {
    if (vocabulary.find(byte) < 0) dropped.push_back(byte);
  }
  std::vector<std::string> notes{"weights are taken from " + folder.string() + " (step " + std::to_string(from.step) +
                                 ")"};
  if (!fresh.empty()) {
    notes.push_back(std::to_string(fresh.size()) +
                    " characters of this text are new to those weights and start fresh: " + list_of(fresh));
  }
  if (!dropped.empty()) {
    notes.push_back(std::to_string(dropped.size()) +
                    " characters that those weights know do not occur in this text: " + list_of(dropped));
  }
  return notes;
}

}  // namespace charrnn
