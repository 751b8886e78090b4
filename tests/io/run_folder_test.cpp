#include "io/run_folder.h"

#include <sys/wait.h>
#include <unistd.h>

#include "io/checkpoints.h"
#include "io/files.h"

using namespace charrnn;
using namespace charrnn::tests;

namespace {

struct Fixture {
  NoSync no_sync;
  TempFolder temporary;
  fs::path root = temporary / "runs/first";  // both are made
  std::vector<std::string> notes;

  std::vector<std::string> checkpoints() const { return names_in(root / "checkpoints"); }
  std::string best() const { return fs::read_symlink(root / "best").string(); }
  std::string latest() const { return fs::read_symlink(root / "latest").string(); }
};

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE_METHOD(Fixture, "a fresh folder holds no run, and a checkpoint or metrics make it one", "[io][run_folder]") {
  RunFolder run(root);
  CHECK(!run.holds_run());
  CHECK(!run.newest_good(notes));
  CHECK(run.checkpoint_folder(100) == root / "checkpoints/step-00000100");
  CHECK(run.checkpoint_folder(1'234'567'890'123).filename() == "step-1234567890123");
  write_all(run.metrics_file(), "");
  CHECK(!run.holds_run());
  write_all(run.metrics_file(), "{}\n");
  CHECK(run.holds_run());
  fs::remove(run.metrics_file());
  run.save(small_checkpoint(1), false, 3);
  CHECK(run.holds_run());
}

TEST_CASE_METHOD(Fixture, "the newest so many checkpoints are kept, and the best", "[io][run_folder]") {
  RunFolder run(root);
  run.save(small_checkpoint(10), true, 2);
  for (const int step : {20, 30, 40}) run.save(small_checkpoint(step), false, 2);
  CHECK(checkpoints() == Names{"step-00000010", "step-00000030", "step-00000040"});
  CHECK(best() == "checkpoints/step-00000010");
  CHECK(latest() == "checkpoints/step-00000040");
  CHECK(same_checkpoint(load_checkpoint(root / "latest", LoadState::kYes), small_checkpoint(40)));
  run.save(small_checkpoint(50), true, 2);
  CHECK(checkpoints() == Names{"step-00000040", "step-00000050"});
  run.save(small_checkpoint(60), false, 0);  // 0 keeps the newest
  CHECK(checkpoints() == Names{"step-00000050", "step-00000060"});
  CHECK(*run.newest_good(notes) == run.checkpoint_folder(60));
  CHECK(notes.empty());
}

TEST_CASE_METHOD(Fixture, "the same step is saved again in place of the old", "[io][run_folder]") {
  RunFolder run(root);
  run.save(small_checkpoint(10), false, 2);
  Checkpoint other = small_checkpoint(10);
  other.parameters[0] = 42;
  run.save(other, true, 2);
  CHECK(checkpoints() == Names{"step-00000010"});
  CHECK(same_checkpoint(load_checkpoint(root / "best", LoadState::kYes), other));
}

TEST_CASE_METHOD(Fixture, "damaged checkpoints are passed over with a sentence, and push no good one out",
                 "[io][run_folder]") {
  RunFolder run(root);
  for (const int step : {10, 20, 30, 40}) run.save(small_checkpoint(step), false, 4);
  fs::remove(run.checkpoint_folder(40) / "manifest.json");
  write_all(run.checkpoint_folder(30) / "state.safetensors", "short");
  CHECK(*run.newest_good(notes) == run.checkpoint_folder(20));
  REQUIRE(notes.size() == 2);
  CHECK(contains(notes[0], "step 40"));
  CHECK(contains(notes[0], "has no manifest.json"));
  CHECK(contains(notes[1], "step 30"));
  // The run goes on from 20. Step 40 is later than the run is, 30 is damaged: neither counts as one of two kept.
  run.save(small_checkpoint(35), false, 2);
  CHECK(checkpoints() == Names{"step-00000020", "step-00000030", "step-00000035", "step-00000040"});
  run.save(small_checkpoint(40), false, 2);
  CHECK(checkpoints() == Names{"step-00000035", "step-00000040"});
  CHECK(*run.newest_good(notes) == run.checkpoint_folder(40));
}

TEST_CASE_METHOD(Fixture, "names that are no checkpoints are left alone", "[io][run_folder]") {
  RunFolder run(root);
  for (const auto* name : {"step-12", "step-0000012x", "step-", "step--0000001", "backup", "step-00000012.old"}) {
    fs::create_directory(root / "checkpoints" / name);
  }
  write_all(root / "checkpoints/step-00000013", "a file");
  run.save(small_checkpoint(20), false, 0);
  run.remove_leftovers();
  CHECK(checkpoints().size() == 8);
  CHECK(list_checkpoints(root).size() == 1);
}

TEST_CASE_METHOD(Fixture, "a trial checkpoint leaves nothing behind", "[io][run_folder]") {
  RunFolder run(root);
  run.trial_save(small_checkpoint(0));
  Checkpoint weights = small_checkpoint(0);
  weights.state.reset();
  run.trial_save(weights);
  CHECK(checkpoints().empty());
  CHECK(names_in(root) == Names{"checkpoints", "lock"});
}

TEST_CASE_METHOD(Fixture, "going back to an older step forgets the newer ones", "[io][run_folder]") {
  RunFolder run(root);
  for (const int step : {10, 20, 30}) run.save(small_checkpoint(step), step == 20, 5);
  run.forget_after(20);
  CHECK(checkpoints() == Names{"step-00000010", "step-00000020"});
  CHECK(latest() == "checkpoints/step-00000020");
  CHECK(best() == "checkpoints/step-00000020");
  run.forget_after(10);
  CHECK(checkpoints() == Names{"step-00000010"});
  CHECK(!fs::exists(fs::symlink_status(root / "best")));
  run.forget_after(5);
  CHECK(checkpoints().empty());
  CHECK(!fs::exists(fs::symlink_status(root / "latest")));
}

TEST_CASE_METHOD(Fixture, "leftovers of a killed save go, a checkpoint put aside comes back", "[io][run_folder]") {
  RunFolder run(root);
  run.save(small_checkpoint(10), false, 5);
  run.save(small_checkpoint(20), false, 5);
  const fs::path checkpoints_folder = root / "checkpoints";
  fs::create_directory(checkpoints_folder / ".tmp-step-00000030-99");
  write_all(checkpoints_folder / ".tmp-step-00000030-99" / "model.safetensors", "half");
  fs::rename(checkpoints_folder / "step-00000020", checkpoints_folder / ".old-step-00000020-99");
  fs::copy(checkpoints_folder / "step-00000010", checkpoints_folder / ".old-step-00000010-99");
  fs::create_symlink("nowhere", root / ".tmp-latest-99");
  write_all(root / ".tmp-notes-of-mine", "kept");
  CHECK(*run.newest_good(notes) == checkpoints_folder / ".old-step-00000020-99");  // before it is put back, too
  run.remove_leftovers();
  CHECK(checkpoints() == Names{"step-00000010", "step-00000020"});
  CHECK(names_in(root) == Names{".tmp-notes-of-mine", "checkpoints", "latest", "lock"});
  CHECK(same_checkpoint(load_checkpoint(root / "latest", LoadState::kYes), small_checkpoint(20)));
}

TEST_CASE_METHOD(Fixture, "a log is cut back to what it was", "[io][run_folder]") {
  RunFolder run(root);
  CHECK(RunFolder::cut_log(run.metrics_file(), 0));
  CHECK(!RunFolder::cut_log(run.metrics_file(), 1));
  CHECK(!fs::exists(run.metrics_file()));
  write_all(run.metrics_file(), "123456789");
  CHECK(RunFolder::cut_log(run.metrics_file(), 9));
  CHECK(RunFolder::cut_log(run.metrics_file(), 4));
  CHECK(read_all(run.metrics_file()) == "1234");
  CHECK(!RunFolder::cut_log(run.metrics_file(), 5));
  CHECK(read_all(run.metrics_file()) == "1234");
  CHECK_THROWS_AS(RunFolder::cut_log(root, 1), RunError);
}

TEST_CASE_METHOD(Fixture, "two runs cannot share a folder, in one process or two", "[io][run_folder][lock]") {
  {
    RunFolder run(root);
    CHECK(contains(message_of<ConfigError>([&] { RunFolder second(root); }), ":" + std::to_string(getpid()) + ")"));
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      int seen = 1;
      try {
        RunFolder second(root);
      } catch (const ConfigError& error) {
        seen = contains(error.what(), "is in use by another run (") ? 0 : 2;
      } catch (...) {
        seen = 3;
      }
      _exit(seen);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  RunFolder again(root);  // the first let go of it
  CHECK(contains(read_all(root / "lock"), ":" + std::to_string(getpid())));
}

TEST_CASE_METHOD(Fixture, "a lock goes with its process, however that ends", "[io][run_folder][lock]") {
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    RunFolder run(root);
    static_cast<void>(write(ready[1], "x", 1) == 1);
    pause();
    _exit(0);
  }
  char c = 0;
  REQUIRE(read(ready[0], &c, 1) == 1);
  CHECK(contains(message_of<ConfigError>([&] { RunFolder second(root); }), ":" + std::to_string(child) + ")"));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  CHECK_NOTHROW(RunFolder(root));
  close(ready[0]);
  close(ready[1]);
}

TEST_CASE_METHOD(Fixture, "a folder that cannot be made is refused with its path and the reason", "[io][run_folder]") {
  write_all(temporary / "file", "x");
  const std::string message = message_of<RunError>([&] { RunFolder run(temporary / "file/run"); });
  CHECK(contains(message, (temporary / "file").string()));
  CHECK(contains(message, "Not a directory"));
  fs::create_symlink("nowhere/at/all", temporary / "dangling");
  CHECK_THROWS_AS(RunFolder(temporary / "dangling"), RunError);
  CHECK_THROWS_AS(RunFolder("/proc/charrnn-run"), RunError);
  CHECK_THROWS_AS(RunFolder(""), ConfigError);
}

TEST_CASE_METHOD(Fixture, "RUN means its best checkpoint, else its newest, and CHECKPOINT itself", "[io][run_folder]") {
  RunFolder run(root);
  for (const int step : {10, 20, 30}) run.save(small_checkpoint(step), false, 5);
  CHECK(resolve_checkpoint(root).folder == run.checkpoint_folder(30));
  CHECK(resolve_checkpoint(root).choice == "newest");
  run.save(small_checkpoint(40), true, 5);
  run.save(small_checkpoint(50), false, 5);
  CHECK(resolve_checkpoint(root).folder == run.checkpoint_folder(40));
  CHECK(resolve_checkpoint(root).choice == "best");
  CHECK(resolve_checkpoint(run.checkpoint_folder(20)).folder == run.checkpoint_folder(20));
  CHECK(resolve_checkpoint(run.checkpoint_folder(20)).choice.empty());
  CHECK(resolve_checkpoint(root / "latest").choice.empty());
  CHECK(load_checkpoint(resolve_checkpoint(root / "latest").folder, LoadState::kNo).step == 50);

  write_all(run.checkpoint_folder(40) / "model.safetensors", "damaged");
  write_all(run.checkpoint_folder(50) / "manifest.json", "{");
  const ResolvedCheckpoint other = resolve_checkpoint(root);
  CHECK(other.folder == run.checkpoint_folder(30));
  CHECK(other.choice == "newest");
  CHECK(other.notes.size() >= 2);
  fs::remove_all(run.checkpoint_folder(40));  // best points at nothing
  CHECK(resolve_checkpoint(root).choice == "newest");
}

TEST_CASE_METHOD(Fixture, "where there is no checkpoint, it is said what was looked for", "[io][run_folder]") {
  CHECK(contains(message_of<FormatError>([&] { resolve_checkpoint(root); }), "charrnn-gpu --config"));
  CHECK(contains(message_of<FormatError>([&] { resolve_checkpoint(""); }), "no such folder"));
  RunFolder run(root);
  const std::string message = message_of<FormatError>([&] { resolve_checkpoint(root); });
  CHECK(contains(message, "checkpoints/step-NNNNNNNN"));
  CHECK(contains(message, "charrnn-gpu --config"));
  write_all(temporary / "file", "x");
  CHECK(contains(message_of<FormatError>([&] { resolve_checkpoint(temporary / "file"); }), "is no folder"));
  run.save(small_checkpoint(10), true, 1);
  fs::remove(run.checkpoint_folder(10) / "manifest.json");
  CHECK(contains(message_of<FormatError>([&] { resolve_checkpoint(root); }), "no checkpoint that can be read"));
}
