// See share.h.
#include "share.h"

#include <exception>

#include "bounds.h"
#include "ring2_cuda.h"

using namespace ring2_cuda_driver;
using namespace ring2_cuda_internal;
using namespace ring2_cuda_limits;

namespace {

std::mutex &all_lock = *new std::mutex;
auto &all = *new std::unordered_map<ring2_producer *, std::weak_ptr<SharedSegment>>;
// So that a process without a GPU takes no lock for its steps.
std::atomic<bool> any{false};

std::shared_ptr<SharedSegment> find_segment(ring2_producer *producer) {
  const std::lock_guard<std::mutex> guard(all_lock);
  const auto found = all.find(producer);
  return found == all.end() ? nullptr : found->second.lock();
}

}  // namespace

namespace ring2_cuda_internal {

std::shared_ptr<SharedSegment> share_segment(ring2_producer *producer) {
  const std::lock_guard<std::mutex> guard(all_lock);
  std::erase_if(all, [](const auto &one) { return one.second.expired(); });
  std::weak_ptr<SharedSegment> &known = all[producer];
  std::shared_ptr<SharedSegment> shared = known.lock();
  if (shared == nullptr) {
    shared = std::make_shared<SharedSegment>(producer);
    known = shared;
  }
  any.store(true, std::memory_order_release);
  return shared;
}

bool has_room(const ring2_producer *producer, uint64_t bytes) {
  const ring2_header *header = ring2_producer_header(producer);
  const uint64_t used = __atomic_load_n(&header->payload_head, __ATOMIC_RELAXED) -
                        __atomic_load_n(&header->payload_tail, __ATOMIC_ACQUIRE);
  const uint64_t records = __atomic_load_n(&header->meta_head, __ATOMIC_RELAXED) -
                           __atomic_load_n(&header->meta_tail, __ATOMIC_ACQUIRE);
  const uint64_t need = sizeof(ring2_gap) + 2 * bytes + 3 * RING2_PAYLOAD_ALIGN;
  return records + 2 <= header->meta_slots && used + need <= header->payload_bytes;
}

}  // namespace ring2_cuda_internal

bool SharedSegment::pin(const Driver *driver) {
  const ring2_header *header = ring2_producer_header(producer_);
  auto *base = reinterpret_cast<uint8_t *>(const_cast<ring2_header *>(header));
  void *payload = base + header->payload_offset;
  const std::lock_guard<std::mutex> guard(lock_);
  ways_ += 1;
  if (registered_ != nullptr) return true;
  // Portable: pinned for every GPU of the process.
  const CUresult result = driver->host_register(payload, header->payload_bytes, kHostRegisterPortable);
  if (result == kSuccess) registered_ = payload;
  return result == kSuccess || result == kAlreadyRegistered;
}

void SharedSegment::leave(const Driver *driver) {
  const std::lock_guard<std::mutex> guard(lock_);
  ways_ -= 1;
  if (ways_ > 0 || registered_ == nullptr) return;
  driver->host_unregister(registered_);
  registered_ = nullptr;
}

void SharedSegment::keep(const ring2_step_header &header, const ring2_step_row *rows) {
  const std::lock_guard<std::mutex> guard(lock_);
  Kept kept = {++announced_, header, {rows, rows + header.row_count}};
  if (!steps_.emplace(header.step, std::move(kept)).second) return;
  order_.push_back(header.step);
  rows_kept_ += header.row_count;
  while (order_.size() > kStepsKept || rows_kept_ > kStepRowsKept) {
    const auto oldest = steps_.find(order_.front());
    rows_kept_ -= oldest->second.rows.size();
    steps_.erase(oldest);
    order_.pop_front();
  }
}

bool SharedSegment::announce_again(int64_t step) {
  ring2_step_header header;
  std::vector<ring2_step_row> rows;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    const auto found = steps_.find(step);
    // One that is not kept any more goes on as it is: the exporter counts it, if it has forgotten it too.
    if (found == steps_.end() || announced_ - found->second.announced <= kStepsRemembered) return true;
    header = found->second.header;
    rows = found->second.rows;
  }
  if (!has_room(producer_, sizeof header + rows.size() * sizeof(ring2_step_row))) return false;
  header.flags |= RING2_STEP_AGAIN;
  // Without the lock: a producer that may wait for room must not hold up the model's next step.
  if (ring2_write_step(producer_, &header, rows.data()) != RING2_OK) return false;
  const std::lock_guard<std::mutex> guard(lock_);
  announced_ += 1;
  const auto found = steps_.find(step);
  if (found != steps_.end()) found->second.announced = announced_;
  return true;
}

extern "C" void ring2_cuda_step_written(ring2_producer *producer, const ring2_step_header *header,
                                        const ring2_step_row *rows) try {
  if (!any.load(std::memory_order_acquire)) return;
  const std::shared_ptr<SharedSegment> shared = find_segment(producer);
  if (shared != nullptr) shared->keep(*header, rows);
} catch (const std::exception &) {
  // Without memory for it the step is announced once, as without a GPU.
}
