#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/console.h"
#include "devices/registry.h"

namespace charrnn {

ExitCode devices_command(const Arguments& arguments) {
  bool json = false;
  Options options("devices", "Lists every backend; for an absent one, the reason.",
                  "--json: {schema, devices: [{backend, available, detail, precisions, threads}]}.");
  options.json(json);
  if (!options.parse(arguments)) return ExitCode::kOk;

  const std::vector<BackendStatus> backends = list_backends();
  if (json) {
    nlohmann::ordered_json object{{"schema", kJsonSchema}, {"devices", nlohmann::ordered_json::array()}};
    for (const BackendStatus& status : backends) {
      nlohmann::ordered_json precisions = nlohmann::ordered_json::array();
      for (const Precision precision : status.precisions) precisions.push_back(name_of(precision));
      object["devices"].push_back({{"backend", status.backend},
                                   {"available", status.available},
                                   {"detail", status.detail},
                                   {"precisions", precisions},
                                   {"threads", status.threads}});
    }
    write_json(object);
    return ExitCode::kOk;
  }
  std::vector<std::vector<std::string>> table{{"device", "status", "precisions", "threads", "detail"}};
  for (const BackendStatus& status : backends) {
    table.push_back({status.backend, status.available ? "available" : "absent",
                     status.precisions.empty() ? "-" : precision_names(status.precisions),
                     status.threads > 0 ? std::to_string(status.threads) : "-", status.detail});
  }
  write_stdout(format_table(table));
  return ExitCode::kOk;
}

}  // namespace charrnn
