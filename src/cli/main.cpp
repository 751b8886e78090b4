// charrnn-gpu: the command line. Errors become exit codes here and nowhere else.
#include <fmt/format.h>

#include <csignal>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/console.h"
#include "devices/registry.h"

namespace charrnn {
namespace {

struct Command {
  const char* name;
  const char* summary;
  ExitCode (*run)(const Arguments&);
};

const std::vector<Command>& commands() {
  static const std::vector<Command> all{
      {"train", "train a network on a text, or go on with a run", train_command},
      {"sample", "draw texts from a run or checkpoint", sample_command},
      {"eval", "score a text, or a run's validation or test split", eval_command},
      {"inspect", "show what a checkpoint holds, without reading its weights", inspect_command},
      {"bench", "time the training step of a config, or sampling or scoring", bench_command},
      {"gradcheck", "compare analytic with numeric gradients", gradcheck_command},
      {"devices", "list the devices, and why one is absent", devices_command},
  };
  return all;
}

std::string overall_help() {
  std::string text =
      "charrnn-gpu: character-level recurrent networks, trained on a text and sampled.\n\n"
      "usage: charrnn-gpu --config FILE [flags]      the same as: charrnn-gpu train --config FILE [flags]\n"
      "       charrnn-gpu COMMAND [flags]\n\ncommands:\n";
  for (const Command& command : commands()) text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  text +=
      "\nflags:\n"
      "  -h, --help     print this help and exit; charrnn-gpu COMMAND --help for that of a command\n"
      "  --version      print version, build, compiler and backends, and exit\n\n"
      "exit codes: 0 ok, 1 run-time failure, 2 usage or config, 3 data or checkpoint, 4 device or precision,\n"
      "            75 saved and asks to be run again, 130 or 143 stopped by SIGINT or SIGTERM after saving\n\n"
      "first steps: charrnn-gpu --config hello, then charrnn-gpu sample runs/hello\n";
  return text;
}

std::string version() {
  std::string text =
      fmt::format("charrnn-gpu {}\nbuild: {}{}\ncompiler: {}\n", CHARRNN_VERSION, CHARRNN_BUILD_TYPE,
                  CHARRNN_SANITIZERS[0] == '\0' ? "" : ", sanitizers " CHARRNN_SANITIZERS, CHARRNN_COMPILER);
  for (const BackendStatus& status : list_backends().backends) {
    text += fmt::format("backend {}: {}{}\n", status.device.empty() ? status.backend : status.device,
                        status.available ? "" : "absent: ", status.detail);
  }
  return text;
}

std::string help_hint(const std::string& command) {
  return fmt::format("see charrnn-gpu {}{}--help", command, command.empty() ? "" : " ");
}

ExitCode dispatch(const Arguments& all, std::string& command) {
  if (all.empty()) throw UsageError("no command; charrnn-gpu --config FILE trains");
  const std::string& first = all.front();
  if (first == "--help" || first == "-h" || first == "help") {
    write_stdout(overall_help());
    return ExitCode::kOk;
  }
  if (first == "--version") {
    write_stdout(version());
    return ExitCode::kOk;
  }
  if (first.starts_with("-")) {  // charrnn-gpu --config FILE ...
    command = "train";
    return train_command(all);
  }
  std::vector<std::string> names;
  for (const Command& known : commands()) {
    if (first == known.name) {
      command = first;
      if (all.size() == 2 && all.back() == "--version") {
        write_stdout(version());
        return ExitCode::kOk;
      }
      return known.run({all.begin() + 1, all.end()});
    }
    names.emplace_back(known.name);
  }
  throw UsageError("unknown command '" + first + "'" + did_you_mean(first, names));
}

}  // namespace
}  // namespace charrnn

int main(int argc, char** argv) {
  using charrnn::ExitCode;
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error to report, not an end without a word
  std::string command;
  ExitCode code = ExitCode::kRuntime;
  try {
    code = charrnn::dispatch({argv + (argc > 0 ? 1 : 0), argv + argc}, command);
  } catch (const charrnn::UsageError& error) {
    charrnn::error(error.what());
    charrnn::say(charrnn::help_hint(command));
    code = error.code();
  } catch (const charrnn::Error& error) {
    charrnn::error(error.what());
    code = error.code();
  } catch (const std::bad_alloc&) {
    charrnn::error("memory ran out; a smaller model.hidden, train.batch or train.sequence needs less");
  } catch (const std::exception& error) {
    charrnn::error(error.what());
  }
  return static_cast<int>(code);
}
