// What the ways of several GPUs into one segment have in common: the pinned memory, the STEPs that a slow
// copier has to announce again, and records behind the tensors of all of them. Internal.
#ifndef RING2_CUDA_SHARE_H
#define RING2_CUDA_SHARE_H

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "driver.h"
#include "ring2.h"

// A record that waits for the entries before it, on each of the GPUs.
struct HeldRecord {
  uint32_t kind = 0;
  std::string json;
  std::atomic<uint32_t> waiting{1};  // GPUs, and the one who launches the fences
};

class SharedSegment {
 public:
  explicit SharedSegment(ring2_producer *producer) : producer_(producer) {}
  SharedSegment(const SharedSegment &) = delete;
  SharedSegment &operator=(const SharedSegment &) = delete;

  // Registers the payload ring as pinned memory, unless another way has. A context is current.
  bool pin(const ring2_cuda_driver::Driver *driver);
  // One way fewer. The last takes the registration back; its context is current.
  void leave(const ring2_cuda_driver::Driver *driver);

  // Remembers a STEP that was written, within its bounds: the oldest goes first.
  void keep(const ring2_step_header &header, const ring2_step_row *rows);
  // Before a tensor of the step: writes its STEP again when the exporter may have forgotten it. False when
  // it had to and there is no room: nobody could attribute the tensor.
  bool announce_again(int64_t step);

 private:
  struct Kept {
    uint64_t announced;  // how many STEPs had been written with it
    ring2_step_header header;
    std::vector<ring2_step_row> rows;
  };

  ring2_producer *producer_;
  std::mutex lock_;
  void *registered_ = nullptr;
  uint32_t ways_ = 0;
  std::unordered_map<int64_t, Kept> steps_;
  std::deque<int64_t> order_;
  uint64_t rows_kept_ = 0;
  uint64_t announced_ = 0;
};

namespace ring2_cuda_internal {

// The one of this producer, for as long as a way holds it.
std::shared_ptr<SharedSegment> share_segment(ring2_producer *producer);

// Whether a record may be written without being counted as lost first.
bool has_room(const ring2_producer *producer, uint64_t bytes);

}  // namespace ring2_cuda_internal

#endif
