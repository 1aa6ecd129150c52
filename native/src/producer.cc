// The producing side: claim, fill, commit. One process, any number of threads.
//
// A private mutex orders the claims of this process's threads; it is not in shared memory, so a
// process that dies while holding it leaves nothing locked. The bytes are copied outside of it.

#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <mutex>
#include <new>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "control.h"
#include "error.h"
#include "producer.h"
#include "ring2_hooks.h"
#include "segment.h"
#include "tensor_shape.h"

using namespace ring2;

namespace ring2 {

int forked_error() {
  return ring2_set_error(RING2_E_CLOSED, "this process is a fork of the segment's producer");
}

void publish(ring2_producer *producer, const ring2_claim &claim) {
  ring2_header *header = producer->segment.header;
  add_relaxed(header->committed_bytes, claim.payload_bytes);
  atomic(header->committed_records).fetch_add(1, std::memory_order_release);
  // Publishes the payload and the descriptor; pairs with the acquire load in ring2_drain.
  store_release(producer->segment.slot(claim.position).state,
                claim.position << 2 | RING2_SLOT_COMMITTED);
}

}  // namespace ring2

namespace {

constexpr std::chrono::microseconds kFullPollInterval{50};

void note_loss(ring2_producer *producer, uint32_t reason, uint64_t records, uint64_t bytes,
               int64_t step) {
  ring2_loss_count &total = producer->segment.header->producer_losses[reason];
  add_relaxed(total.records, records);
  add_relaxed(total.bytes, bytes);
  ring2_gap &gap = producer->gap;
  if (!producer->gap_pending) {
    gap = {};
    gap.first_step = gap.last_step = -1;
  }
  gap.losses[reason].records += records;
  gap.losses[reason].bytes += bytes;
  if (step >= 0) {
    if (gap.first_step < 0) gap.first_step = step;
    gap.last_step = step;
  }
  producer->gap_pending = true;
}

// Where a record would go, or why it cannot. The caller holds the lock.
struct Room {
  uint64_t payload_position;
  int loss;  // -1: there is room
};

Room find_room(ring2_producer *producer, uint64_t bytes) {
  const Segment &segment = producer->segment;
  if (bytes > segment.payload_bytes) return {0, RING2_LOSS_OVERSIZED};
  if (producer->head - producer->tail_seen >= segment.meta_slots) {
    // Pairs with the release store in ring2_release.
    producer->tail_seen = load_acquire(segment.header->meta_tail);
    if (producer->head - producer->tail_seen >= segment.meta_slots) {
      return {0, RING2_LOSS_META_FULL};
    }
  }
  const uint64_t position = segment.place(producer->payload_head, bytes);
  const uint64_t end = position + bytes;
  if (end - producer->payload_tail_seen <= segment.payload_bytes) return {position, -1};
  producer->payload_tail_seen = load_acquire(segment.header->payload_tail);
  if (end - producer->payload_tail_seen <= segment.payload_bytes) return {position, -1};
  // In an empty ring every byte is free, so that a large record fits wherever the last one ended.
  producer->tail_seen = load_acquire(segment.header->meta_tail);
  if (producer->tail_seen == producer->head) return {position, -1};
  return {0, RING2_LOSS_PAYLOAD_FULL};
}

void take(ring2_producer *producer, const ring2_descriptor &facts, const Room &room,
          ring2_claim *out) {
  const Segment &segment = producer->segment;
  const uint64_t position = producer->head;
  ring2_descriptor &slot = segment.slot(position);
  // Pairs with publish(): whoever committed in this space a lap ago is done with it. The consumer's
  // release says so too, but through another process, where no checker of this one can see it.
  load_acquire(segment.header->committed_records);
  // All but the state word, which the consumer may be polling.
  constexpr size_t kFacts = offsetof(ring2_descriptor, kind);
  std::memcpy(reinterpret_cast<uint8_t *>(&slot) + kFacts,
              reinterpret_cast<const uint8_t *>(&facts) + kFacts, sizeof facts - kFacts);
  slot.payload_position = room.payload_position;
  store_release(slot.state, position << 2 | RING2_SLOT_CLAIMED);
  producer->head = position + 1;
  producer->payload_head = room.payload_position + facts.payload_bytes;
  store_relaxed(segment.header->payload_head, producer->payload_head);
  // Publishes the claimed slot; pairs with the acquire load in ring2_drain.
  store_release(segment.header->meta_head, producer->head);
  out->payload = segment.payload + room.payload_position % segment.payload_bytes;
  out->payload_bytes = facts.payload_bytes;
  out->position = position;
}

// Announces losses ahead of the record that follows them. The caller holds the lock.
int announce_gap(ring2_producer *producer) {
  if (!producer->gap_pending) return -1;
  const Room room = find_room(producer, sizeof(ring2_gap));
  if (room.loss >= 0) return room.loss;
  ring2_descriptor facts = {};
  facts.kind = RING2_KIND_GAP;
  facts.layer = -1;
  facts.step = -1;
  facts.payload_bytes = sizeof(ring2_gap);
  facts.captured_monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  ring2_claim claim;
  take(producer, facts, room, &claim);
  std::memcpy(claim.payload, &producer->gap, sizeof(ring2_gap));
  publish(producer, claim);
  producer->gap_pending = false;
  return -1;
}

}  // namespace

namespace ring2 {

int claim_record(ring2_producer *producer, const ring2_descriptor &facts, ring2_claim *out) {
  if (forked(producer)) return forked_error();
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::microseconds(producer->block_timeout_us);
  std::unique_lock<std::mutex> guard(producer->lock);
  if (facts.kind == RING2_KIND_TENSOR && facts.step == producer->lost_step) {
    note_loss(producer, RING2_LOSS_STEP_LOST, 1, facts.payload_bytes, facts.step);
    return RING2_FULL;
  }
  while (true) {
    int loss = announce_gap(producer);
    if (loss < 0) {
      const Room room = find_room(producer, facts.payload_bytes);
      loss = room.loss;
      if (loss < 0) {
        take(producer, facts, room, out);
        return RING2_OK;
      }
    }
    const bool may_wait = producer->when_full == RING2_WHEN_FULL_BLOCK &&
                          loss != RING2_LOSS_OVERSIZED &&
                          std::chrono::steady_clock::now() < deadline;
    if (!may_wait) {
      note_loss(producer, static_cast<uint32_t>(loss), 1, facts.payload_bytes, facts.step);
      if (facts.kind == RING2_KIND_STEP) producer->lost_step = facts.step;
      return RING2_FULL;
    }
    guard.unlock();
    std::this_thread::sleep_for(kFullPollInterval);
    guard.lock();
  }
}

}  // namespace ring2

namespace {

int check_tensor(const ring2_tensor &tensor, uint64_t *bytes) {
  if (tensor.hook >= RING2_HOOKS_MAX || ring2_hook_facts[tensor.hook].name == nullptr) {
    return ring2_set_error(RING2_E_HOOK, "hook id %u; expected one of the catalogue", tensor.hook);
  }
  if (tensor.layer < -1 || tensor.layer >= static_cast<int32_t>(RING2_LAYERS_MAX)) {
    return ring2_set_error(RING2_E_ARGUMENT, "layer %d; expected -1 to %u", tensor.layer,
                           RING2_LAYERS_MAX - 1);
  }
  if (tensor.ndim == 0 || tensor.ndim > RING2_DIMS_MAX) {
    return ring2_set_error(RING2_E_HOOK, "%s with %u axes; expected 1 to %u",
                           ring2_hook_facts[tensor.hook].name, tensor.ndim, RING2_DIMS_MAX);
  }
  for (uint32_t axis = 0; axis < tensor.ndim; ++axis) {
    if (tensor.dims[axis] < 0 || tensor.dims[axis] > INT32_MAX) {
      return ring2_set_error(RING2_E_ARGUMENT, "axis %u of length %lld; expected 0 to %d", axis,
                             static_cast<long long>(tensor.dims[axis]), INT32_MAX);
    }
  }
  if (!dense_bytes(tensor.dims, tensor.ndim, tensor.dtype, bytes)) {
    return ring2_set_error(RING2_E_ARGUMENT, "dtype %u or a shape of more than 2^63 bytes",
                           tensor.dtype);
  }
  return RING2_OK;
}

ring2_descriptor describe(const ring2_tensor &tensor, uint64_t bytes) {
  ring2_descriptor facts = {};
  facts.kind = RING2_KIND_TENSOR;
  facts.dtype = static_cast<uint8_t>(tensor.dtype);
  facts.ndim = static_cast<uint8_t>(tensor.ndim);
  facts.hook = static_cast<uint16_t>(tensor.hook);
  facts.layer = static_cast<int16_t>(tensor.layer);
  facts.payload_bytes = bytes;
  facts.captured_monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  facts.step = tensor.step;
  for (uint32_t axis = 0; axis < tensor.ndim; ++axis) {
    facts.dims[axis] = static_cast<uint32_t>(tensor.dims[axis]);
  }
  facts.tp_rank = tensor.tp_rank;
  facts.pp_rank = tensor.pp_rank;
  facts.dp_rank = tensor.dp_rank;
  facts.ep_rank = tensor.ep_rank;
  return facts;
}

// Whether the claim still owns its slot: a second commit or a stale claim does not.
int check_claim(const ring2_producer *producer, const ring2_claim *claim) {
  if (producer == nullptr || claim == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null producer or claim");
  }
  if (forked(producer)) return forked_error();
  const uint64_t state = load_acquire(producer->segment.slot(claim->position).state);
  if (state != (claim->position << 2 | RING2_SLOT_CLAIMED)) {
    return ring2_set_error(RING2_E_ARGUMENT, "claim %llu is not open (state %llu)",
                           static_cast<unsigned long long>(claim->position),
                           static_cast<unsigned long long>(state));
  }
  return RING2_OK;
}

void *map_fork_guard() {
  void *page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  if (madvise(page, kPageBytes, MADV_WIPEONFORK) != 0) {
    munmap(page, kPageBytes);
    return nullptr;
  }
  *static_cast<uint8_t *>(page) = 1;
  return page;
}

}  // namespace

extern "C" {

int ring2_producer_open(const ring2_producer_options *options, ring2_producer **out) {
  if (options == nullptr || out == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "null options or result");
  }
  *out = nullptr;
  auto *producer = new (std::nothrow) ring2_producer;
  if (producer == nullptr) return ring2_set_error(RING2_E_MEMORY, "a producer handle");
  producer->fork_guard = static_cast<uint8_t *>(map_fork_guard());
  if (producer->fork_guard == nullptr) {
    const int error = ring2_set_error(RING2_E_SYSTEM, "mapping one page: %s", std::strerror(errno));
    delete producer;
    return error;
  }
  const int created = segment_create(*options, &producer->segment);
  if (created != RING2_OK) {
    munmap(producer->fork_guard, kPageBytes);
    delete producer;
    return created;
  }
  producer->when_full = options->when_full;
  producer->block_timeout_us = options->block_timeout_us;
  ring2_control control;
  ring2_take_control(producer, &control);
  *out = producer;
  return RING2_OK;
}

int ring2_producer_close(ring2_producer *producer) {
  if (producer == nullptr) return RING2_OK;
  if (!forked(producer)) {
    {
      const std::lock_guard<std::mutex> guard(producer->lock);
      announce_gap(producer);
    }
    ring2_header *header = producer->segment.header;
    store_release(header->producer_closed, uint32_t{1});
    // Nothing is left to drain: the file goes. An exporter that holds it sees an empty closed ring.
    if (load_acquire(header->meta_tail) == producer->head) segment_unlink(producer->segment);
  }
  segment_unmap(&producer->segment);
  munmap(producer->fork_guard, kPageBytes);
  delete producer;
  return RING2_OK;
}

int ring2_producer_heartbeat(ring2_producer *producer) {
  if (producer == nullptr) return ring2_set_error(RING2_E_ARGUMENT, "a null producer");
  if (forked(producer)) return forked_error();
  store_relaxed(producer->segment.header->producer_heartbeat_ns, clock_ns(CLOCK_MONOTONIC));
  return RING2_OK;
}

const ring2_header *ring2_producer_header(const ring2_producer *producer) {
  return producer == nullptr ? nullptr : producer->segment.header;
}

int ring2_take_control(ring2_producer *producer, ring2_control *out) {
  if (producer == nullptr || out == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null producer or result");
  }
  if (forked(producer)) {
    // A copy of nothing is answered with no everywhere.
    *out = {};
    out->nothing = 1;
    return forked_error();
  }
  const bool read = read_control(*producer->segment.header, out);
  if (read && out->sequence == producer->control_kept.load(std::memory_order_relaxed)) return RING2_OK;
  const std::lock_guard<std::mutex> guard(producer->control_lock);
  if (read) {
    producer->control = *out;
    producer->control_kept.store(out->sequence, std::memory_order_relaxed);
  } else {
    *out = producer->control;
  }
  return RING2_OK;
}

int ring2_wants(const ring2_producer *producer, uint32_t hook, int32_t layer) {
  if (producer == nullptr || hook >= RING2_HOOKS_MAX || forked(producer)) return 0;
  if (layer >= static_cast<int32_t>(RING2_LAYERS_MAX)) return 0;
  const uint32_t bit = layer < 0 ? 0 : static_cast<uint32_t>(layer);
  const uint64_t word = load_relaxed(producer->segment.header->wanted[hook][bit / 64]);
  return static_cast<int>(word >> (bit % 64) & 1);
}

int ring2_claim_tensor(ring2_producer *producer, const ring2_tensor *tensor, ring2_claim *out) {
  if (producer == nullptr || tensor == nullptr || out == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null producer, tensor or claim");
  }
  uint64_t bytes = 0;
  const int checked = check_tensor(*tensor, &bytes);
  if (checked != RING2_OK) return checked;
  return claim_record(producer, describe(*tensor, bytes), out);
}

int ring2_commit(ring2_producer *producer, const ring2_claim *claim) {
  const int checked = check_claim(producer, claim);
  if (checked != RING2_OK) return checked;
  publish(producer, *claim);
  return RING2_OK;
}

int ring2_abort(ring2_producer *producer, const ring2_claim *claim) {
  const int checked = check_claim(producer, claim);
  if (checked != RING2_OK) return checked;
  {
    const std::lock_guard<std::mutex> guard(producer->lock);
    note_loss(producer, RING2_LOSS_ABORTED, 1, claim->payload_bytes,
              producer->segment.slot(claim->position).step);
  }
  store_release(producer->segment.slot(claim->position).state,
                claim->position << 2 | RING2_SLOT_ABORTED);
  return RING2_OK;
}

int ring2_count_loss(ring2_producer *producer, uint32_t reason, uint64_t records, uint64_t bytes) {
  if (producer == nullptr || reason >= RING2_LOSS_PRODUCER_DIED) {
    return ring2_set_error(RING2_E_ARGUMENT, "reason %u; expected a reason of the producer", reason);
  }
  if (forked(producer)) return forked_error();
  const std::lock_guard<std::mutex> guard(producer->lock);
  note_loss(producer, reason, records, bytes, -1);
  return RING2_OK;
}

}  // extern "C"
