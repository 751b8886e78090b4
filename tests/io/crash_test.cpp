// A save is killed, or fails, at each of its system calls in turn: what is found afterwards is the old or the new.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "io/checkpoints.h"
#include "io/files.h"
#include "io/run_folder.h"

using namespace charrnn;
using namespace charrnn::tests;
using io::testing::Fault;

namespace {

/// What the hook does; plain globals, since it is a function pointer and the children are forked.
struct Plan {
  int at = 0;                  // the call that it happens at, from 1; 0: never
  bool from_there_on = false;  // at all later ones too
  bool kill = false;
  int error = 0;
  std::size_t at_most = std::numeric_limits<std::size_t>::max();
  bool no_exchange = false;   // a file system that cannot exchange two names
  bool spare_removal = true;  // an error does not hit unlink and rmdir
  int calls = 0;
};
Plan plan;

Fault hook(const char* call, const fs::path& /*path*/) {
  const std::string name = call;
  if (plan.no_exchange && name == "exchange") return {.error = EINVAL};
  const bool removal = name == "unlink" || name == "rmdir";
  if (plan.kill || !plan.spare_removal || !removal) ++plan.calls;
  const bool now = plan.at > 0 && (plan.calls == plan.at || (plan.from_there_on && plan.calls > plan.at));
  if (now && plan.kill) raise(SIGKILL);
  if (now && plan.error != 0 && (!plan.spare_removal || !removal)) return {.error = plan.error};
  return {.at_most = plan.at_most, .skip = name == "fsync"};
}

struct Hooked {
  explicit Hooked(const Plan& p) {
    plan = p;
    io::testing::before_syscall = hook;
  }
  ~Hooked() { io::testing::before_syscall = nullptr; }
  Hooked(const Hooked&) = delete;
  Hooked& operator=(const Hooked&) = delete;
};

const Checkpoint& old_checkpoint() {
  static const Checkpoint checkpoint = small_checkpoint(10);
  return checkpoint;
}
const Checkpoint& new_checkpoint() {
  static const Checkpoint checkpoint = small_checkpoint(20);
  return checkpoint;
}
const Checkpoint& same_step_checkpoint() {
  static const Checkpoint checkpoint = [] {
    Checkpoint c = small_checkpoint(10);
    c.parameters[1] = 42;
    return c;
  }();
  return checkpoint;
}

/// A run with the old checkpoint, as best and latest.
void prepare(const fs::path& root) {
  const Hooked hooked(Plan{});
  RunFolder(root).save(old_checkpoint(), true, 3);
}

/// What a run finds when it starts again; the leftovers are removed as it does.
Checkpoint found(const fs::path& root) {
  const Hooked hooked(Plan{});
  RunFolder run(root);
  std::vector<std::string> notes;
  const Checkpoint before = load_checkpoint(*run.newest_good(notes), LoadState::kYes);
  CHECK_NOTHROW(resolve_checkpoint(root));  // which verifies it
  run.remove_leftovers();
  const fs::path newest = *run.newest_good(notes);
  Checkpoint after = load_checkpoint(newest, LoadState::kYes);
  CHECK(notes.empty());
  CHECK(same_checkpoint(before, after));
  for (const std::string& name : names_in(root / "checkpoints")) CHECK(name.starts_with("step-"));
  for (const std::string& name : names_in(root)) CHECK(!name.starts_with("."));
  const fs::path resolved = resolve_checkpoint(root).folder;
  CHECK((fs::equivalent(resolved, newest) || fs::equivalent(resolved, run.checkpoint_folder(old_checkpoint().step))));
  return after;
}

/// Kills a child that saves at call 1, 2, ... until one gets through. Gives how many calls there were.
int kill_at_each_call(const Checkpoint& fresh, int keep, bool no_exchange) {
  for (int at = 1;; ++at) {
    INFO("killed at call " << at);
    TempFolder temporary;
    const fs::path root = temporary / "run";
    prepare(root);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        const RunFolder run(root);
        const Hooked hooked(Plan{.at = at, .kill = true, .no_exchange = no_exchange});
        const_cast<RunFolder&>(run).save(fresh, true, keep);
      } catch (...) {
        _exit(1);
      }
      _exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    const Checkpoint now = found(root);
    const bool is_new = same_checkpoint(now, fresh);
    CHECK((is_new || same_checkpoint(now, old_checkpoint())));
    if (WIFSIGNALED(status)) {
      REQUIRE(WTERMSIG(status) == SIGKILL);
      REQUIRE(at < 200);
      continue;
    }
    CHECK(status == 0);
    CHECK(is_new);
    return at - 1;
  }
}

}  // namespace

TEST_CASE("a save killed at any of its calls leaves the old or the new checkpoint", "[io][crash]") {
  CHECK(kill_at_each_call(new_checkpoint(), 3, false) > 20);
}

TEST_CASE("so does one that removes the old checkpoint", "[io][crash]") {
  CHECK(kill_at_each_call(new_checkpoint(), 1, false) > 25);
}

TEST_CASE("so does one that replaces the checkpoint of the same step", "[io][crash]") {
  CHECK(kill_at_each_call(same_step_checkpoint(), 3, false) > 25);
}

TEST_CASE("so does one on a file system that cannot exchange two names", "[io][crash]") {
  CHECK(kill_at_each_call(same_step_checkpoint(), 3, true) > 25);
}

TEST_CASE("an error at any call of a save is told, and the old checkpoint stays", "[io][crash]") {
  struct Case {
    int error;
    bool forever, no_exchange;
  };
  const auto [error, forever, no_exchange] =
      GENERATE(Case{ENOSPC, false, false}, Case{ENOSPC, true, true}, Case{EIO, false, true}, Case{EDQUOT, true, false});
  const Checkpoint& fresh = no_exchange ? same_step_checkpoint() : new_checkpoint();
  int refused = 0;
  for (int at = 1;; ++at) {
    INFO("error " << error << " at call " << at);
    REQUIRE(at < 200);
    TempFolder temporary;
    const fs::path root = temporary / "run";
    prepare(root);
    bool failed = false;
    {
      RunFolder run(root);
      const Hooked hooked(Plan{.at = at, .from_there_on = forever, .error = error, .no_exchange = no_exchange});
      try {
        run.save(fresh, false, 3);
      } catch (const RunError& e) {
        failed = true;
        const std::string message = e.what();
        INFO(message);
        CHECK(contains(message, root.string()));
        CHECK(contains(message, std::generic_category().message(error)));
      }
      CHECK(plan.calls >= (failed ? at : 1));
    }
    if (!failed) {
      CHECK(same_checkpoint(found(root), fresh));
      break;
    }
    ++refused;
    for (const std::string& name : names_in(root / "checkpoints")) CHECK(!name.starts_with(".tmp-"));
    const Checkpoint now = found(root);
    CHECK((same_checkpoint(now, old_checkpoint()) || same_checkpoint(now, fresh)));
    // And the next save works.
    const Hooked hooked(Plan{});
    RunFolder(root).save(fresh, true, 3);
  }
  CHECK(refused > 15);
}

TEST_CASE("an error that hits the removal of what was half written is told all the same", "[io][crash]") {
  for (int at = 1; at < 40; ++at) {
    INFO("at call " << at);
    TempFolder temporary;
    const fs::path root = temporary / "run";
    prepare(root);
    {
      RunFolder run(root);
      const Hooked hooked(Plan{.at = at, .from_there_on = true, .error = EIO, .spare_removal = false});
      try {
        run.save(new_checkpoint(), false, 1);
      } catch (const RunError&) {
      }
    }
    const Checkpoint now = found(root);
    CHECK((same_checkpoint(now, old_checkpoint()) || same_checkpoint(now, new_checkpoint())));
  }
}

TEST_CASE("a full disk is told with what was needed and what is free", "[io][crash]") {
  TempFolder temporary;
  const Hooked hooked(Plan{.at = 3, .error = ENOSPC});  // mkdir, open, write
  const std::string message = message_of<RunError>([&] { save_checkpoint(temporary / "c", old_checkpoint()); });
  INFO(message);
  CHECK(contains(message, "cannot write: No space left on device"));
  CHECK(contains(message, "bytes are needed"));
  CHECK(contains(message, "are free on that file system"));
  CHECK(contains(message, "--output"));
  CHECK(names_in(temporary.path()).empty());
}

TEST_CASE("short writes and interrupted calls are no errors", "[io][crash]") {
  TempFolder temporary;
  {
    const Hooked hooked(Plan{.at_most = 7});
    save_checkpoint(temporary / "short", old_checkpoint());
  }
  CHECK(same_checkpoint(load_checkpoint(temporary / "short", LoadState::kYes), old_checkpoint()));
  for (int at = 1; at < 30; ++at) {
    const Hooked hooked(Plan{.at = at, .error = EINTR});
    save_checkpoint(temporary / "interrupted", new_checkpoint());
    CHECK(same_checkpoint(load_checkpoint(temporary / "interrupted", LoadState::kYes), new_checkpoint()));
  }
}

TEST_CASE("a replaced file or link is old or new at any error, and nothing else is left", "[io][crash]") {
  const Hooked set_up(Plan{});
  const int error = GENERATE(ENOSPC, EIO);
  for (int at = 1; at < 12; ++at) {
    TempFolder temporary;
    plan = Plan{};
    replace_file(temporary / "f", "old");
    replace_symlink(temporary / "l", "old");
    plan = Plan{.at = at, .error = error};
    try {
      replace_file(temporary / "f", "new");
      replace_symlink(temporary / "l", "new");
    } catch (const RunError&) {
    }
    const std::string content = read_all(temporary / "f"), target = fs::read_symlink(temporary / "l").string();
    CHECK((content == "old" || content == "new"));
    CHECK((target == "old" || target == "new"));
    CHECK(names_in(temporary.path()) == std::vector<std::string>{"f", "l"});
  }
}

TEST_CASE("without the hook, files are written for real", "[io]") {
  TempFolder temporary;
  write_new_file(temporary / "f", {"a", "", "bc"});
  CHECK(read_all(temporary / "f") == "abc");
  CHECK_THROWS_AS(write_new_file(temporary / "f", {"x"}), RunError);
  CHECK(read_all(temporary / "f") == "abc");
  CHECK_THROWS_AS(write_new_file(temporary / "none/f", {"x"}), RunError);
  replace_file(temporary / "f", "new");
  CHECK(read_file(temporary / "f", 3) == "new");
  CHECK(contains(message_of<FormatError>([&] { read_file(temporary / "f", 2); }), "has 3 bytes, expected at most 2"));
  CHECK_THROWS_AS(read_file(temporary.path(), 10), FormatError);
  save_checkpoint(temporary / "c", old_checkpoint());
  save_checkpoint(temporary / "c", new_checkpoint());
  CHECK(same_checkpoint(load_checkpoint(temporary / "c", LoadState::kYes), new_checkpoint()));
  CHECK(names_in(temporary.path()) == std::vector<std::string>{"c", "f"});
}
