// Streams, events and the scheduler: queues of operations, run when something waits for them.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "host_cuda/checker.h"
#include "host_cuda/random.h"

namespace host_cuda {

struct Capture;

/// A place in a stream that an event marked.
struct Point {
  bool passed = false;
  Clock clock;
  double us = 0;  // virtual: an operation takes a microsecond
};

struct Operation {
  std::string name;
  Work work;                                     // or none
  std::function<void(CUstream_st&)> inner = {};  // instead of work: operations of its own, a graph's
  std::shared_ptr<Point> wait;                   // may run when this has passed
  std::shared_ptr<Point> record;                 // passes when this has run
  Clock called;                                  // what the host had seen when it called
};

}  // namespace host_cuda

struct CUstream_st {
  host_cuda::Chain chain = 0;
  host_cuda::Clock clock;
  std::deque<host_cuda::Operation> queue;
  std::shared_ptr<host_cuda::Capture> capture;
  unsigned flags = 0;
  bool destroyed = false;  // what is queued still runs
};

struct CUevent_st {
  unsigned flags = 0;
  std::shared_ptr<host_cuda::Point> last;  // none: never recorded
  std::shared_ptr<host_cuda::Capture> capture;
  std::vector<cudaGraphNode_t> captured;  // the last record was in this capture, behind these nodes
};

namespace host_cuda {

class Scheduler {
 public:
  CUstream_st* make_stream(unsigned flags);
  void destroy(CUstream_st* stream);
  /// Null if it is no living stream; the default stream is reported.
  CUstream_st* find(cudaStream_t stream);
  /// The legacy default stream, for calls that use it by their nature (cudaMemcpy).
  CUstream_st& default_stream() { return *default_; }

  CUevent_st* make_event(unsigned flags);
  void destroy(CUevent_st* event);
  CUevent_st* find(cudaEvent_t event);

  void add(CUstream_st& stream, Operation operation);
  /// Runs what must run, and what the dice say besides, until the stream is empty (the point has passed).
  void drain(CUstream_st& stream);
  void drain_all();
  void wait_for(const Point& point);
  /// Perhaps runs something: a device does not wait to be asked.
  void drift();
  /// The same for who asks again and again: sooner or later it has run.
  void progress(CUstream_st& stream);
  void progress(const Point& point);
  /// The host has waited for all of the stream.
  void host_sees(const CUstream_st& stream);
  bool capturing() const;

  double now_us() const { return now_us_; }
  std::vector<std::string> living() const;
  void reset(std::uint64_t seed);
  Scheduler();

 private:
  bool run_one(CUstream_st* wanted);
  void run_head(CUstream_st& stream);

  std::vector<std::unique_ptr<CUstream_st>> streams_;
  std::vector<std::unique_ptr<CUevent_st>> events_;
  std::unique_ptr<CUstream_st> default_;
  Dice dice_;
  unsigned eagerness_ = 0;  // of 8: how often something runs unasked
  unsigned strays_ = 0;     // of 8: how often another stream than the wanted one goes first
  double now_us_ = 0;
};

Scheduler& scheduler();
/// Dice for blocks and threads.
Dice& dice();

}  // namespace host_cuda
