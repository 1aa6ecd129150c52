// The parts of one ring2_cuda: GPU memory, pinned memory, launches, the copier. Internal.
#ifndef RING2_CUDA_TRANSPORT_H
#define RING2_CUDA_TRANSPORT_H

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "driver.h"
#include "bounds.h"
#include "ring2_cuda.h"
#include "share.h"
#include "shared.h"

struct TakenEntry {
  ring2_claim claim;
  bool claimed;
  uint64_t bytes;
};

// Copies that one event stands behind, and where the tails go when it is over.
struct CopyBatch {
  CUevent event = nullptr;
  std::vector<TakenEntry> entries;
  uint64_t entry_tail = 0;
  uint64_t payload_tail = 0;
};

// One that this GPU's entries hold back.
struct HeldHere {
  uint64_t token;  // of its fence
  std::shared_ptr<HeldRecord> record;
};

struct ring2_cuda {
  const ring2_cuda_driver::Driver *driver = nullptr;
  ring2_producer *producer = nullptr;
  CUcontext context = nullptr;
  CUdevice device = 0;
  CUmodule module = nullptr;
  CUfunction capture = nullptr, capture_runs = nullptr;
  CUfunction begin_step = nullptr, end_step = nullptr, fence = nullptr;
  CUstream stream = nullptr;  // the copier's own; non-blocking
  CUdeviceptr control_memory = 0, payload_memory = 0, scratch_memory = 0;
  CUdeviceptr page_on_device = 0;
  uint64_t ring_bytes = 0;
  uint32_t blocks_max = 1;
  ring2_cuda_shared::CudaPage *page = nullptr;
  ring2_cuda_shared::CudaEntry *entries = nullptr;
  std::shared_ptr<SharedSegment> shared;
  bool joined = false;  // counted among the segment's ways
  bool pinned = false;

  // Launches.
  std::mutex scratch_lock;
  std::map<std::pair<CUstream, unsigned>, uint32_t> stream_scratch;  // and the launch's blocks
  uint32_t scratches_used = 0;
  std::atomic<uint64_t> graph_nodes{0};
  std::atomic<bool> broken{false};

  // Records held back, in order; the fences were launched under the same lock.
  std::mutex held_lock;
  std::deque<HeldHere> held;
  uint64_t fence_token = 0;

  // The copier alone, while it runs.
  std::thread copier;
  std::atomic<bool> stopping{false};
  std::vector<CUevent> free_events;
  std::deque<CopyBatch> in_flight;
  uint64_t next_entry = 0;  // sequence of the next to take
  ring2_cuda_shared::CudaLossCount losses_seen[ring2_cuda_shared::kLossCount] = {};
  std::atomic<uint64_t> committed_entries{0};
  std::atomic<uint64_t> copied_records{0}, copied_bytes{0};
  std::atomic<uint64_t> dropped_records{0}, dropped_bytes{0};
};

namespace ring2_cuda_internal {

// Makes the transport's context current for one scope.
class ContextScope {
 public:
  explicit ContextScope(const ring2_cuda *cuda) : driver_(cuda->driver) {
    CUcontext current = nullptr;
    entered_ = driver_->context_current(&current) == ring2_cuda_driver::kSuccess;
    if (!entered_ || current == cuda->context) return;
    pushed_ = driver_->context_push(cuda->context) == ring2_cuda_driver::kSuccess;
    entered_ = pushed_;
  }
  ~ContextScope() {
    CUcontext left = nullptr;
    if (pushed_) driver_->context_pop(&left);
  }
  ContextScope(const ContextScope &) = delete;
  ContextScope &operator=(const ContextScope &) = delete;
  bool entered() const { return entered_; }

 private:
  const ring2_cuda_driver::Driver *driver_;
  bool entered_ = false;
  bool pushed_ = false;
};

// Lets this thread call the driver while another one captures a graph: without it, asking after an
// event would spoil a capture of PyTorch, which forbids such calls to every thread.
class RelaxedScope {
 public:
  explicit RelaxedScope(const ring2_cuda_driver::Driver *driver) : driver_(driver) {
    mode_ = static_cast<CUstreamCaptureMode>(ring2_cuda_driver::kCaptureModeRelaxed);
    driver_->exchange_capture_mode(&mode_);
  }
  ~RelaxedScope() { driver_->exchange_capture_mode(&mode_); }
  RelaxedScope(const RelaxedScope &) = delete;
  RelaxedScope &operator=(const RelaxedScope &) = delete;

 private:
  const ring2_cuda_driver::Driver *driver_;
  CUstreamCaptureMode mode_;
};

void run_copier(ring2_cuda *cuda);
// Writes what is held back and due; with `all`, whatever is left.
void write_held(ring2_cuda *cuda, bool all);
void report_losses(ring2_cuda *cuda);

}  // namespace ring2_cuda_internal

#endif
