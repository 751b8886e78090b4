#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "charrnn/checkpoint.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/describe.h"

namespace charrnn {
namespace {

std::string dimensions(const std::vector<std::uint64_t>& shape) {
  std::string text;
  for (const std::uint64_t extent : shape) text += (text.empty() ? "" : " x ") + std::to_string(extent);
  return text.empty() ? "1" : text;
}

std::string characters(const Vocabulary& vocabulary) {
  std::string text;
  for (const std::uint8_t byte : vocabulary.bytes()) text += (text.empty() ? "" : " ") + printable(byte);
  return text;
}

void print_json(const CheckpointSummary& summary) {
  nlohmann::ordered_json object{{"schema", kJsonSchema},
                                {"checkpoint", summary.folder.string()},
                                {"step", summary.step},
                                {"validation_nats_per_char", summary.validation_nats},  // null where not known
                                {"parameters", summary.parameter_count}};
  object["shape"] = {{"cell", name_of(summary.shape.cell)},
                     {"layers", summary.shape.layers},
                     {"hidden", summary.shape.hidden},
                     {"vocabulary", summary.shape.vocabulary}};
  if (const std::string nonlinearity = nonlinearity_name(summary.shape.cell); !nonlinearity.empty()) {
    object["shape"]["nonlinearity"] = nonlinearity;
  }
  object["vocabulary"] = std::vector<int>(summary.vocabulary.bytes().begin(), summary.vocabulary.bytes().end());
  object["tensors"] = nlohmann::ordered_json::array();
  for (const auto& tensor : summary.tensors) {
    object["tensors"].push_back(
        {{"file", tensor.file}, {"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}});
  }
  object["hashes"] = nlohmann::ordered_json::object();
  for (const auto& [file, hash] : summary.hashes) object["hashes"][file] = hash;
  object["state"] = nlohmann::ordered_json::object();
  for (const auto& [name, value] : summary.state) object["state"][name] = value;
  object["config"] = to_yaml(summary.config);
  write_json(object);
}

void print_tables(const CheckpointSummary& summary) {
  Rows rows{{"checkpoint", summary.folder.string()},
            {"step", format_count(summary.step)},
            {"validation", std::isfinite(summary.validation_nats)
                               ? format_fixed(summary.validation_nats, 4) + " nats/char"
                               : std::string("not known")},
            {"network", shape_name(summary.shape)},
            {"parameters", format_count(static_cast<std::int64_t>(summary.parameter_count))},
            {"vocabulary", characters(summary.vocabulary)}};
  for (const auto& [file, hash] : summary.hashes) rows.emplace_back("sha256 " + file, hash);
  for (const auto& row : summary.state) {
    if (row.first != "step") rows.push_back(row);  // stands above
  }
  std::vector<std::vector<std::string>> table{{"file", "tensor", "dtype", "shape"}};
  for (const auto& tensor : summary.tensors) {
    table.push_back({tensor.file, tensor.name, tensor.dtype, dimensions(tensor.shape)});
  }
  write_stdout(format_rows(rows) + "\n" + format_table(table) + "\nconfig:\n" + to_yaml(summary.config));
}

}  // namespace

ExitCode inspect_command(const Arguments& arguments) {
  std::string run;
  bool json = false;
  Options options(
      "inspect", "Shows what a checkpoint holds: tensors, shapes, dtypes, step, hashes, config. Reads no weights.",
      "--json: {schema, checkpoint, step, validation_nats_per_char, parameters, shape, vocabulary, tensors, "
      "hashes, state, config}.");
  options.positional("RUN|CHECKPOINT", run, "a run's folder or a checkpoint's");
  options.json(json);
  if (!options.parse(arguments)) return ExitCode::kOk;

  const ResolvedCheckpoint source = resolve_checkpoint(run);
  const CheckpointSummary summary = peek_checkpoint(source.folder);
  say_which(source, summary.step);
  if (json) {
    print_json(summary);
  } else {
    print_tables(summary);
  }
  return ExitCode::kOk;
}

}  // namespace charrnn
