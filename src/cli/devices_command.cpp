#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/console.h"
#include "devices/registry.h"

namespace charrnn {

namespace {

nlohmann::ordered_json or_null(const std::string& text) {
  return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
}

}  // namespace

ExitCode devices_command(const Arguments& arguments) {
  bool json = false;
  Options options(
      "devices", "Lists every backend; for an absent one, the reason.",
      "--json: {schema, devices: [{backend, device, available, detail, precisions, threads, memory_bytes}], cudnn}.");
  options.json(json);
  if (!options.parse(arguments)) return ExitCode::kOk;

  const BackendList list = list_backends();
  if (json) {
    nlohmann::ordered_json object{{"schema", kJsonSchema}, {"devices", nlohmann::ordered_json::array()}};
    for (const BackendStatus& status : list.backends) {
      nlohmann::ordered_json precisions = nlohmann::ordered_json::array();
      for (const Precision precision : status.precisions) precisions.push_back(name_of(precision));
      object["devices"].push_back({{"backend", status.backend},
                                   {"device", or_null(status.device)},
                                   {"available", status.available},
                                   {"detail", status.detail},
                                   {"precisions", precisions},
                                   {"threads", status.threads},
                                   {"memory_bytes", status.memory_bytes}});
    }
    object["cudnn"] = or_null(list.cudnn);
    write_json(object);
    return ExitCode::kOk;
  }
  std::vector<std::vector<std::string>> table{{"device", "status", "precisions", "threads", "memory", "detail"}};
  for (const BackendStatus& status : list.backends) {
    table.push_back({status.device.empty() ? status.backend : status.device, status.available ? "available" : "absent",
                     status.precisions.empty() ? "-" : precision_names(status.precisions),
                     status.threads > 0 ? std::to_string(status.threads) : "-",
                     status.memory_bytes > 0 ? format_bytes(static_cast<double>(status.memory_bytes)) : "-",
                     status.detail});
  }
  write_stdout(format_table(table));
  if (!list.cudnn.empty()) write_stdout("cuDNN: " + list.cudnn + "\n");
  return ExitCode::kOk;
}

}  // namespace charrnn
