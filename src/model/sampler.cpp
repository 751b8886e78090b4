#include "charrnn/sampler.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "backend/backend.h"
#include "backend/draw.h"
#include "charrnn/config.h"
#include "charrnn/error.h"
#include "kernels/philox.h"
#include "model/initialize.h"
#include "model/loaded_model.h"

namespace charrnn {
namespace {

constexpr int kPrimeWindow = 64;  // steps; bounds the memory that a long prime needs
/// Steps that the backend draws at once: few enough that texts appear as they are written, and that stopping is heard.
std::int64_t steps_at_once(int count) {
  constexpr std::int64_t kSteps = 64, kCharacters = 4096;
  return std::clamp<std::int64_t>(kCharacters / count, 1, kSteps);
}

void check_settings(const SampleSettings& settings) {
  if (settings.length < 0) {
    throw ConfigError("sample length is " + std::to_string(settings.length) + ", expected at least 0");
  }
  if (!(settings.temperature > 0) || !std::isfinite(settings.temperature)) {
    throw ConfigError("sample temperature is " + std::to_string(settings.temperature) +
                      ", expected a number above 0; greedy takes the likeliest character each time");
  }
  if (settings.top_k < 0) {
    throw ConfigError("sample top-k is " + std::to_string(settings.top_k) +
                      ", expected at least 1, or 0 for all characters");
  }
  if (settings.count < 1 || settings.count > kMaxBatch) {
    throw ConfigError("sample count is " + std::to_string(settings.count) + ", expected 1 to " +
                      std::to_string(kMaxBatch));
  }
}

}  // namespace

TokenId draw(const float* logits, int vocabulary, const SampleSettings& settings, double random) {
  DrawScratch scratch(vocabulary);
  const DrawSettings draws{.temperature = settings.temperature, .top_k = settings.top_k, .greedy = settings.greedy};
  return draw_character({logits, static_cast<std::size_t>(vocabulary)}, draws, random, scratch);
}

std::vector<std::string> sample_texts(Network& network, const Vocabulary& vocabulary, const SampleSettings& settings,
                                      const std::function<void(int text, std::string_view bytes)>& emit,
                                      const std::function<bool()>& cancelled) {
  check_settings(settings);
  const int V = network.layout().shape().vocabulary;
  if (V != vocabulary.size()) {
    throw ShapeError("the network knows " + std::to_string(V) + " characters, its vocabulary holds " +
                     std::to_string(vocabulary.size()));
  }
  const std::vector<TokenId> prime = vocabulary.encode(settings.prime, "the prime");
  const auto count = static_cast<std::size_t>(settings.count), characters = static_cast<std::size_t>(V);

  std::vector<std::string> texts(count, settings.prime);
  if (emit && !settings.prime.empty()) {
    for (int i = 0; i < settings.count; ++i) emit(i, settings.prime);
  }
  if (settings.length == 0) return texts;

  const auto window_steps = static_cast<int>(std::clamp<std::size_t>(prime.size(), 1, kPrimeWindow));
  const auto session = network.open({.batch = settings.count, .max_steps = window_steps, .training = false});
  session->reset();

  // All of the prime but its last character; that one goes through the loop below, which wants its logits.
  std::vector<TokenId> ids;
  for (std::size_t at = 0; at + 1 < prime.size();) {
    if (cancelled && cancelled()) return texts;
    const std::size_t steps = std::min<std::size_t>(kPrimeWindow, prime.size() - 1 - at);
    ids.clear();
    for (std::size_t t = 0; t < steps; ++t) ids.insert(ids.end(), count, prime[at + t]);
    session->forward({.steps = static_cast<int>(steps),
                      .batch = settings.count,
                      .ids = ids,
                      .targets = {},
                      .weights = {},
                      .reset = {}},
                     {});
    at += steps;
  }

  if (prime.empty()) {
    ids.assign(count, 0);
  } else {
    ids.assign(count, prime.back());
  }
  // Each text has a stream of random numbers of its own, so that it does not depend on how many there are.
  DrawSettings draws{.temperature = settings.temperature,
                     .top_k = settings.top_k,
                     .greedy = settings.greedy,
                     .seed = settings.seed,
                     .first_stream = kSampleStream,
                     .stream_step = std::uint64_t{1} << 32U};
  std::vector<float> logits;  // [count,V]
  DrawScratch scratch(V);
  std::vector<TokenId> drawn;  // [steps,count]
  std::vector<bool> done(count, false);
  std::size_t running = count;
  bool on_device = true;  // until the backend says that it does not draw
  for (std::int64_t n = 0; n < settings.length && running > 0;) {
    if (cancelled && cancelled()) break;
    const bool uniform = n == 0 && prime.empty();
    draws.first_draw = n;
    std::int64_t steps = std::min(steps_at_once(settings.count), settings.length - n);
    if (!uniform && on_device) {
      drawn.resize(static_cast<std::size_t>(steps) * count);
      on_device = session->generate(static_cast<int>(steps), ids, draws, drawn);
    }
    if (uniform || !on_device) {
      steps = 1;
      drawn.resize(count);
      if (!uniform) {
        logits.resize(count * characters);
        session->forward({.steps = 1, .batch = settings.count, .ids = ids, .targets = {}, .weights = {}, .reset = {}},
                         logits);
      }
      for (std::size_t i = 0; i < count; ++i) {
        if (done[i]) continue;  // its lane runs on, unread
        const double random =
            stream_uniform(draws.seed, draws.first_stream + i * draws.stream_step, static_cast<std::uint64_t>(n));
        drawn[i] = uniform ? static_cast<TokenId>(random * V)
                           : draw_character(std::span<const float>(logits).subspan(i * characters, characters), draws,
                                            random, scratch);
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t before = texts[i].size();
      for (std::int64_t t = 0; t < steps && !done[i]; ++t) {  // what was drawn past the stop text is dropped
        texts[i].push_back(static_cast<char>(vocabulary.byte(drawn[static_cast<std::size_t>(t) * count + i])));
        done[i] = !settings.stop.empty() && texts[i].ends_with(settings.stop);
        if (done[i]) --running;
      }
      if (emit && texts[i].size() > before) emit(static_cast<int>(i), std::string_view(texts[i]).substr(before));
    }
    ids.assign(drawn.end() - static_cast<std::ptrdiff_t>(count), drawn.end());
    n += steps;
  }
  return texts;
}

struct Sampler::Parts {
  LoadedModel model;
};

Sampler Sampler::load(const std::filesystem::path& run_or_checkpoint, const std::string& device, int threads) {
  return Sampler(std::unique_ptr<Parts>(
      new Parts{load_model(run_or_checkpoint, {.device = device, .threads = threads}, Precision::kFp32)}));
}

Sampler::Sampler(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Sampler::~Sampler() = default;
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;

std::vector<std::string> Sampler::draw_texts(const SampleSettings& settings,
                                             const std::function<void(int text, std::string_view bytes)>& emit) {
  return sample_texts(*parts_->model.network, parts_->model.checkpoint.vocabulary, settings, emit);
}

const Vocabulary& Sampler::vocabulary() const noexcept { return parts_->model.checkpoint.vocabulary; }

}  // namespace charrnn
