#include "model/loaded_model.h"

namespace charrnn {

LoadedModel load_model(const std::filesystem::path& run_or_checkpoint, const DeviceOptions& device,
                       Precision precision) {
  LoadedModel model;
  model.source = resolve_checkpoint(run_or_checkpoint);
  model.checkpoint = load_checkpoint(model.source.folder, LoadState::kNo);
  model.backend = open_backend(device);
  model.network = model.backend->make_network(model.checkpoint.shape(), precision);
  model.network->write(Arena::kParameters, model.checkpoint.parameters);
  model.checkpoint.parameters = {};  // one copy is enough
  return model;
}

}  // namespace charrnn
