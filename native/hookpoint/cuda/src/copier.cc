// The thread that takes entries off the GPU: claim in the segment, copy, commit, give the GPU its room back.
//
// It never touches a stream of the model. A claim is committed only when the event behind its copy is
// over, so the exporter never sees bytes that are still on their way.
#include <cstring>

#include "transport.h"

using namespace ring2_cuda_driver;
using namespace ring2_cuda_limits;
using namespace ring2_cuda_shared;
using std::chrono::steady_clock;

namespace ring2_cuda_internal {

namespace {

// Loss reasons of the segment for those of the GPU.
constexpr uint32_t kReasons[kLossCount] = {RING2_LOSS_META_FULL, RING2_LOSS_PAYLOAD_FULL,
                                           RING2_LOSS_OVERSIZED, RING2_LOSS_UNSUPPORTED};

ring2_tensor tensor_of(const CudaEntry &entry) {
  ring2_tensor tensor = {};
  tensor.hook = entry.hook;
  tensor.layer = entry.layer;
  tensor.dtype = entry.dtype;
  tensor.ndim = entry.ndim;
  tensor.step = entry.step;
  for (uint32_t axis = 0; axis < kDims; ++axis) tensor.dims[axis] = entry.dims[axis];
  tensor.tp_rank = entry.ranks[0];
  tensor.pp_rank = entry.ranks[1];
  tensor.dp_rank = entry.ranks[2];
  tensor.ep_rank = entry.ranks[3];
  return tensor;
}

void give_up(ring2_cuda *cuda, const CopyBatch &batch) {  // each is counted as aborted
  for (const TakenEntry &taken : batch.entries) {
    if (taken.claimed) ring2_abort(cuda->producer, &taken.claim);
  }
}

// Claims room for an entry and begins its copy.
TakenEntry take(ring2_cuda *cuda, const CudaEntry &entry) {
  TakenEntry taken = {{}, false, entry.bytes};
  const ring2_tensor tensor = tensor_of(entry);
  if (!cuda->shared->announce_again(entry.step)) {
    ring2_count_loss(cuda->producer, RING2_LOSS_STEP_LOST, 1, entry.bytes);
    return taken;
  }
  const int claimed = ring2_claim_tensor(cuda->producer, &tensor, &taken.claim);
  if (claimed != RING2_OK) {
    // A full segment has counted it already; an error has not.
    if (claimed < 0) ring2_count_loss(cuda->producer, RING2_LOSS_UNSUPPORTED, 1, entry.bytes);
    return taken;
  }
  taken.claimed = true;
  if (entry.bytes == 0) return taken;
  const CUdeviceptr from = cuda->payload_memory + entry.position % cuda->ring_bytes;
  if (taken.claim.payload_bytes != entry.bytes ||
      cuda->driver->copy_to_host_async(taken.claim.payload, from, entry.bytes, cuda->stream) !=
          kSuccess) {
    ring2_abort(cuda->producer, &taken.claim);
    taken.claimed = false;
  }
  return taken;
}

// Begins the copies of what is ready, one event behind them. False when nothing was.
bool begin_batch(ring2_cuda *cuda) {
  if (cuda->free_events.empty()) return false;
  CopyBatch batch;
  while (batch.entries.size() < kBatchEntries) {
    CudaEntry *slot = &cuda->entries[cuda->next_entry % kEntries];
    // Pairs with the kernel's release: the entry and its payload are complete.
    if (__atomic_load_n(&slot->ready, __ATOMIC_ACQUIRE) != cuda->next_entry + 1) break;
    const CudaEntry entry = *slot;
    batch.entries.push_back(take(cuda, entry));
    cuda->next_entry += 1;
    batch.entry_tail = cuda->next_entry;
    batch.payload_tail = entry.position + entry.bytes;
  }
  if (batch.entries.empty()) return false;
  batch.event = cuda->free_events.back();
  cuda->free_events.pop_back();
  if (cuda->driver->event_record(batch.event, cuda->stream) != kSuccess) {
    cuda->broken.store(true);
    give_up(cuda, batch);
    cuda->free_events.push_back(batch.event);
    return true;
  }
  cuda->in_flight.push_back(std::move(batch));
  return true;
}

// Commits the oldest batch when its copies are over. False when they are not.
bool finish_batch(ring2_cuda *cuda) {
  if (cuda->in_flight.empty()) return false;
  CopyBatch &batch = cuda->in_flight.front();
  const CUresult result = cuda->driver->event_query(batch.event);
  if (result == kNotReady) return false;
  if (result != kSuccess) {
    cuda->broken.store(true);
    give_up(cuda, batch);
  } else {
    for (const TakenEntry &taken : batch.entries) {
      if (!taken.claimed) continue;
      ring2_commit(cuda->producer, &taken.claim);
      cuda->copied_records.fetch_add(1, std::memory_order_relaxed);
      cuda->copied_bytes.fetch_add(taken.bytes, std::memory_order_relaxed);
    }
    // The bytes first: a kernel that finds all entries free takes the whole ring for free.
    __atomic_store_n(&cuda->page->payload_tail, batch.payload_tail, __ATOMIC_RELEASE);
    __atomic_store_n(&cuda->page->entry_tail, batch.entry_tail, __ATOMIC_RELEASE);
    cuda->committed_entries.store(batch.entry_tail, std::memory_order_release);
  }
  cuda->free_events.push_back(batch.event);
  cuda->in_flight.pop_front();
  return true;
}

// Entries that were published and will not be copied any more.
void count_left(ring2_cuda *cuda) {
  for (uint32_t i = 0; i < kEntries; ++i, ++cuda->next_entry) {
    const CudaEntry &entry = cuda->entries[cuda->next_entry % kEntries];
    if (__atomic_load_n(&entry.ready, __ATOMIC_ACQUIRE) != cuda->next_entry + 1) return;
    ring2_count_loss(cuda->producer, RING2_LOSS_ABORTED, 1, entry.bytes);
  }
}

}  // namespace

void write_held(ring2_cuda *cuda, bool all) {
  while (true) {
    std::shared_ptr<HeldRecord> record;
    {
      const std::lock_guard<std::mutex> guard(cuda->held_lock);
      if (cuda->held.empty()) return;
      const HeldHere &first = cuda->held.front();
      const CudaFence &fence = cuda->page->fences[first.token % kFences];
      // Pairs with the fence kernel's release. Tokens of a place grow, so a later one says enough.
      const bool passed = __atomic_load_n(&fence.token, __ATOMIC_ACQUIRE) == first.token &&
                          __atomic_load_n(&fence.head, __ATOMIC_RELAXED) <=
                              cuda->committed_entries.load(std::memory_order_relaxed);
      if (!all && !passed) return;
      if (first.record->waiting.fetch_sub(1) > 1) {
        cuda->held.pop_front();
        continue;
      }
      // The last one that it waited for writes it, when there is room.
      if (!all && !has_room(cuda->producer, first.record->json.size())) {
        first.record->waiting.store(1);
        return;
      }
      record = first.record;
      cuda->held.pop_front();
    }
    ring2_write_json(cuda->producer, record->kind, record->json.data(), record->json.size());
  }
}

void report_losses(ring2_cuda *cuda) {
  for (uint32_t reason = 0; reason < kLossCount; ++reason) {
    CudaLossCount &seen = cuda->losses_seen[reason];
    const CudaLossCount &now = cuda->page->losses[reason];
    const uint64_t records = __atomic_load_n(&now.records, __ATOMIC_ACQUIRE);
    const uint64_t bytes = __atomic_load_n(&now.bytes, __ATOMIC_RELAXED);
    if (records == seen.records) continue;
    ring2_count_loss(cuda->producer, kReasons[reason], records - seen.records, bytes - seen.bytes);
    cuda->dropped_records.fetch_add(records - seen.records, std::memory_order_relaxed);
    cuda->dropped_bytes.fetch_add(bytes - seen.bytes, std::memory_order_relaxed);
    seen = {records, bytes};
  }
}

void run_copier(ring2_cuda *cuda) {
  const ContextScope scope(cuda);
  const RelaxedScope relaxed(cuda->driver);
  if (!scope.entered()) cuda->broken.store(true);
  auto last_work = steady_clock::now();
  while (true) {
    bool worked = false;
    if (!cuda->broken.load(std::memory_order_relaxed)) {
      worked = begin_batch(cuda);
      worked |= finish_batch(cuda);
    }
    report_losses(cuda);
    write_held(cuda, cuda->broken.load(std::memory_order_relaxed));
    if (worked) {
      last_work = steady_clock::now();
      continue;
    }
    // The one who closes has waited for the GPU, so what is not ready now will never be.
    if (cuda->stopping.load(std::memory_order_acquire) &&
        (cuda->in_flight.empty() || cuda->broken.load())) {
      break;
    }
    const bool idle = cuda->in_flight.empty() && steady_clock::now() - last_work > kIdleAfter;
    std::this_thread::sleep_for(idle ? kPollIdle : kPollBusy);
  }
  for (const CopyBatch &batch : cuda->in_flight) give_up(cuda, batch);
  count_left(cuda);
  report_losses(cuda);
  write_held(cuda, true);
}

}  // namespace ring2_cuda_internal
