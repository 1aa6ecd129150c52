// The draining side: one exporter at a time. Trusts nothing that lies in shared memory: a descriptor
// is copied, then validated, then used, and no offset is ever taken from the mapping a second time.

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <new>
#include <sys/stat.h>
#include <unistd.h>

#include "consumer.h"
#include "error.h"
#include "measure.h"
#include "segment.h"
#include "segment_info.h"
#include "slicer.h"
#include "step_table.h"
#include "tensor_shape.h"
#include "track.h"
#include "validate.h"

using namespace ring2;

namespace {

constexpr uint64_t kAliveCheckIntervalNs = 100'000'000;

// Everything but the state word, which the producer may store at any time.
void copy_facts(const ring2_descriptor &slot, ring2_descriptor *record) {
  constexpr size_t kFacts = offsetof(ring2_descriptor, kind);
  record->state = 0;
  std::memcpy(reinterpret_cast<uint8_t *>(record) + kFacts,
              reinterpret_cast<const uint8_t *>(&slot) + kFacts, sizeof *record - kFacts);
}

uint64_t &payload_end(ring2_consumer *consumer, uint64_t position) {
  return consumer->payload_ends[position & (consumer->segment.meta_slots - 1)];
}

// Once for each record, also when a restarted consumer drains it again.
void count_loss(ring2_consumer *consumer, uint32_t reason, uint64_t bytes) {
  ring2_header *header = consumer->segment.header;
  if (consumer->cursor < load_relaxed(header->losses_counted)) return;
  store_relaxed(header->losses_counted, consumer->cursor + 1);
  ring2_loss_count &loss = header->consumer_losses[reason];
  store_relaxed(loss.records, load_relaxed(loss.records) + 1);
  store_relaxed(loss.bytes, load_relaxed(loss.bytes) + bytes);
}

// Closed in order, or dead. Reading /proc costs microseconds, so the answer "alive" is kept a while;
// "gone" is final.
bool producer_gone(ring2_consumer *consumer) {
  if (consumer->producer_gone) return true;
  const ring2_header &header = *consumer->segment.header;
  if (load_acquire(header.producer_closed) != 0) return consumer->producer_gone = true;
  const uint64_t now = clock_ns(CLOCK_MONOTONIC);
  if (now - consumer->alive_checked_ns < kAliveCheckIntervalNs) return false;
  consumer->alive_checked_ns = now;
  return consumer->producer_gone = !producer_alive(header);
}

// A file that was cut short under the mapping would turn the next read into SIGBUS.
int check_file_size(const ring2_consumer *consumer) {
  struct stat status;
  const Segment &segment = consumer->segment;
  if (fstat(segment.file, &status) == 0 &&
      static_cast<uint64_t>(status.st_size) >= segment.mapped_bytes) {
    return RING2_OK;
  }
  return ring2_set_error(RING2_E_NOT_A_SEGMENT, "%s shrank below its %llu bytes",
                         segment.path.c_str(),
                         static_cast<unsigned long long>(segment.mapped_bytes));
}

// Whether the payload of a record lies where the allocator of producer.cc must have put it. After a
// corrupt record that place is not known exactly, and any later one inside the ring will do.
bool span_is_valid(const ring2_consumer *consumer, const ring2_descriptor &record,
                   uint64_t payload_head) {
  const Segment &segment = consumer->segment;
  uint64_t end;
  if (__builtin_add_overflow(record.payload_position, record.payload_bytes, &end)) return false;
  if (end > payload_head || record.payload_position % RING2_PAYLOAD_ALIGN != 0) return false;
  if (record.payload_bytes > segment.payload_bytes) return false;
  if (payload_head - record.payload_position > segment.payload_bytes) return false;
  if (consumer->resync) {
    const uint64_t offset = record.payload_position % segment.payload_bytes;
    return record.payload_position >= consumer->payload_seen &&
           offset + record.payload_bytes <= segment.payload_bytes;
  }
  return record.payload_position ==
         segment.place(consumer->payload_seen, record.payload_bytes);
}

// Moves past a record, noting where the next one must start. A record that is wrong in one field may
// be wrong in its size too, so it says nothing of that.
void advance(ring2_consumer *consumer, const ring2_descriptor &record, bool valid) {
  if (valid) consumer->payload_seen = record.payload_position + record.payload_bytes;
  consumer->resync = !valid;
  payload_end(consumer, consumer->cursor) = consumer->payload_seen;
  ++consumer->cursor;
}

uint64_t realtime(const ring2_consumer *consumer, uint64_t monotonic_ns) {
  const ring2_header &header = *consumer->segment.header;
  return load_relaxed(header.anchor_realtime_ns) + monotonic_ns -
         load_relaxed(header.anchor_monotonic_ns);
}

ring2_slice describe(const ring2_consumer *consumer, const ring2_descriptor &record,
                     uint64_t position) {
  ring2_slice slice = {};
  slice.position = position;
  slice.step = record.step;
  slice.payload_offset = record.payload_position % consumer->segment.payload_bytes;
  slice.payload_bytes = record.payload_bytes;
  slice.captured_realtime_ns = realtime(consumer, record.captured_monotonic_ns);
  slice.kind = record.kind;
  slice.dtype = record.dtype;
  slice.hook = record.hook;
  slice.layer = record.layer;
  slice.token_start = slice.token_end = -1;
  slice.tp_rank = record.tp_rank;
  slice.pp_rank = record.pp_rank;
  slice.dp_rank = record.dp_rank;
  slice.ep_rank = record.ep_rank;
  slice.record_slices = 1;
  slice.groups = RING2_GROUPS_ALL;
  slice.prompt_tokens = -1;
  return slice;
}

// Turns one committed record into slices; returns how many, or -1 when it is not valid.
int accept(ring2_consumer *consumer, const ring2_descriptor &record, uint64_t position,
           ring2_slice *slices) {
  const ring2_slice base = describe(consumer, record, position);
  if (record.kind == RING2_KIND_TENSOR) {
    if (!tensor_is_valid(record)) return -1;
    const Step *step = consumer->steps.find(record.step);
    if (step == nullptr) {
      count_loss(consumer, RING2_LOSS_UNATTRIBUTED, record.payload_bytes);
      slices[0] = base;
      return whole(record, &slices[0]) ? 1 : -1;
    }
    return cut(record, *step, base, slices);
  }
  if (record.kind == RING2_KIND_STEP) {
    const uint8_t *body = consumer->segment.payload + base.payload_offset;
    if (consumer->steps.add(body, record.payload_bytes) != nullptr) return -1;
  }
  if (record.kind < RING2_KIND_MODEL || record.kind > RING2_KIND_VOCABULARY || !body_is_valid(record)) {
    return -1;
  }
  slices[0] = base;
  return 1;
}

enum class SlotVerdict { kCommitted, kSkip, kWait };

// What the slot at the cursor is. A claim of a producer that is gone will never be committed.
SlotVerdict judge(ring2_consumer *consumer, ring2_descriptor *record) {
  ring2_descriptor &slot = consumer->segment.slot(consumer->cursor);
  for (int attempt = 0; attempt < 2; ++attempt) {
    // Pairs with the release store of publish() in producer.cc.
    const uint64_t state = load_acquire(slot.state);
    copy_facts(slot, record);
    if (state == (consumer->cursor << 2 | RING2_SLOT_COMMITTED)) return SlotVerdict::kCommitted;
    if (state == (consumer->cursor << 2 | RING2_SLOT_ABORTED)) return SlotVerdict::kSkip;
    if (state != (consumer->cursor << 2 | RING2_SLOT_CLAIMED)) {
      count_loss(consumer, RING2_LOSS_CORRUPT, 0);
      return SlotVerdict::kSkip;
    }
    // It may have committed between the look at the slot and its death: look once more.
    if (!producer_gone(consumer)) return SlotVerdict::kWait;
  }
  count_loss(consumer, RING2_LOSS_PRODUCER_DIED, record->payload_bytes);
  return SlotVerdict::kSkip;
}

int lock_segment(const Segment &segment) {
  // An open-file-description lock: the kernel drops it with the process, whatever kills it.
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  if (fcntl(segment.file, F_OFD_SETLK, &lock) == 0) return RING2_OK;
  if (errno == EAGAIN || errno == EACCES) {
    return ring2_set_error(RING2_E_BUSY, "%s is drained by process %u", segment.path.c_str(),
                           load_relaxed(segment.header->consumer_pid));
  }
  return ring2_set_error(RING2_E_SYSTEM, "locking %s: %s", segment.path.c_str(),
                         std::strerror(errno));
}

int check_positions(ring2_consumer *consumer) {
  const Segment &segment = consumer->segment;
  const uint64_t tail = load_relaxed(segment.header->meta_tail);
  const uint64_t payload_tail = load_relaxed(segment.header->payload_tail);
  const uint64_t head = load_acquire(segment.header->meta_head);
  const uint64_t payload_head = load_relaxed(segment.header->payload_head);
  // The payload may be up to a lap further than its size: a record that follows an empty ring skips
  // to the start for free.
  if (head - tail > segment.meta_slots || payload_head - payload_tail > 2 * segment.payload_bytes) {
    return ring2_set_error(RING2_E_NOT_A_SEGMENT, "%s: head and tail are further apart than the ring",
                           segment.path.c_str());
  }
  consumer->cursor = consumer->released = tail;
  consumer->payload_seen = payload_tail;
  return RING2_OK;
}

int outside(const ring2_slice &slice) {
  return ring2_set_error(RING2_E_ARGUMENT, "slice at position %llu is not one that drain gave",
                         static_cast<unsigned long long>(slice.position));
}

}  // namespace

extern "C" {

int ring2_consumer_open(const char *path, ring2_consumer **out) {
  if (path == nullptr || out == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null path or result");
  }
  *out = nullptr;
  auto *consumer = new (std::nothrow) ring2_consumer;
  if (consumer == nullptr) return ring2_set_error(RING2_E_MEMORY, "a consumer handle");
  int result = segment_open(path, true, &consumer->segment);
  if (result == RING2_OK) result = lock_segment(consumer->segment);
  if (result == RING2_OK) result = check_positions(consumer);
  if (result != RING2_OK) {
    segment_unmap(&consumer->segment);
    delete consumer;
    return result;
  }
  consumer->payload_ends.assign(consumer->segment.meta_slots, consumer->payload_seen);
  ring2_header *header = consumer->segment.header;
  const auto pid = static_cast<uint32_t>(getpid());
  store_relaxed(header->consumer_pid, pid);
  store_relaxed(header->consumer_start_ticks, process_start_ticks(pid));
  store_relaxed(header->consumer_heartbeat_ns, clock_ns(CLOCK_MONOTONIC));
  store_release(header->consumer_generation, load_relaxed(header->consumer_generation) + 1);
  *out = consumer;
  return RING2_OK;
}

int ring2_consumer_close(ring2_consumer *consumer, int remove) {
  if (consumer == nullptr) return RING2_OK;
  int result = RING2_OK;
  const Segment &segment = consumer->segment;
  if (remove != 0) {
    consumer->alive_checked_ns = 0;
    const bool gone = producer_gone(consumer);
    if (gone && load_acquire(segment.header->meta_head) == consumer->released) {
      segment_unlink(segment);
    } else {
      result = ring2_set_error(RING2_E_NOT_DRAINED, "%s: producer %s, %llu records left",
                               segment.path.c_str(), gone ? "gone" : "alive",
                               static_cast<unsigned long long>(
                                   load_relaxed(segment.header->meta_head) - consumer->released));
    }
  }
  store_relaxed(segment.header->consumer_pid, uint32_t{0});
  segment_unmap(&consumer->segment);
  delete consumer;
  return result;
}

int ring2_consumer_info(ring2_consumer *consumer, ring2_segment_info *out) {
  if (consumer == nullptr || out == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null consumer or result");
  }
  fill_info(*consumer->segment.header, out);
  return RING2_OK;
}

void *ring2_consumer_payload(ring2_consumer *consumer) {
  return consumer == nullptr ? nullptr : consumer->segment.payload;
}

int ring2_consumer_seek(ring2_consumer *consumer, uint64_t position) {
  if (consumer == nullptr) return ring2_set_error(RING2_E_ARGUMENT, "a null consumer");
  const Segment &segment = consumer->segment;
  const uint64_t head = load_acquire(segment.header->meta_head);
  if (position < consumer->cursor || position > head) {
    return ring2_set_error(RING2_E_ARGUMENT, "position %llu; expected %llu to %llu",
                           static_cast<unsigned long long>(position),
                           static_cast<unsigned long long>(consumer->cursor),
                           static_cast<unsigned long long>(head));
  }
  const uint64_t payload_head = load_relaxed(segment.header->payload_head);
  while (consumer->cursor < position) {
    ring2_descriptor record;
    copy_facts(segment.slot(consumer->cursor), &record);
    advance(consumer, record, span_is_valid(consumer, record, payload_head));
  }
  return ring2_release(consumer, position);
}

int ring2_consumer_add_step(ring2_consumer *consumer, const void *body, uint64_t bytes) {
  if (consumer == nullptr || body == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null consumer or body");
  }
  const char *defect = consumer->steps.add(static_cast<const uint8_t *>(body), bytes);
  return defect == nullptr ? RING2_OK : ring2_set_error(RING2_E_ARGUMENT, "step body: %s", defect);
}

int ring2_drain(ring2_consumer *consumer, ring2_slice *slices, uint64_t max_slices,
                uint64_t max_bytes, ring2_drain_result *result) {
  if (consumer == nullptr || slices == nullptr || result == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null consumer, slice array or result");
  }
  if (max_slices < RING2_STEP_ROWS_MAX) {
    return ring2_set_error(RING2_E_ARGUMENT, "room for %llu slices; expected at least %u",
                           static_cast<unsigned long long>(max_slices), RING2_STEP_ROWS_MAX);
  }
  const int sized = check_file_size(consumer);
  if (sized != RING2_OK) return sized;
  std::memset(result, 0, sizeof *result);
  const Segment &segment = consumer->segment;
  // Asked before the head is read: what a producer published before it went is then seen.
  const bool gone = producer_gone(consumer);
  // Pairs with the release store of take() in producer.cc.
  const uint64_t head = load_acquire(segment.header->meta_head);
  const uint64_t payload_head = load_relaxed(segment.header->payload_head);
  if (head < consumer->cursor || head - consumer->released > segment.meta_slots) {
    return ring2_set_error(RING2_E_NOT_A_SEGMENT, "%s: meta_head %llu; expected %llu to %llu",
                           segment.path.c_str(), static_cast<unsigned long long>(head),
                           static_cast<unsigned long long>(consumer->cursor),
                           static_cast<unsigned long long>(consumer->released + segment.meta_slots));
  }
  while (consumer->cursor < head && result->payload_bytes < max_bytes &&
         result->slices + RING2_STEP_ROWS_MAX <= max_slices) {
    ring2_descriptor record;
    const SlotVerdict verdict = judge(consumer, &record);
    if (verdict == SlotVerdict::kWait) {
      result->waiting = 1;
      break;
    }
    bool valid = span_is_valid(consumer, record, payload_head);
    if (verdict == SlotVerdict::kCommitted) {
      const int count =
          valid ? accept(consumer, record, consumer->cursor, slices + result->slices) : -1;
      valid = count >= 0;
      if (valid) {
        result->slices += static_cast<uint64_t>(count);
        result->payload_bytes += record.payload_bytes;
      } else {
        count_loss(consumer, RING2_LOSS_CORRUPT, 0);
      }
    }
    advance(consumer, record, valid);
  }
  store_relaxed(segment.header->consumer_heartbeat_ns, clock_ns(CLOCK_MONOTONIC));
  result->next_position = consumer->cursor;
  result->head_position = head;
  result->finished = gone && consumer->cursor == head ? 1 : 0;
  return RING2_OK;
}

int ring2_release(ring2_consumer *consumer, uint64_t position) {
  if (consumer == nullptr) return ring2_set_error(RING2_E_ARGUMENT, "a null consumer");
  if (position < consumer->released || position > consumer->cursor) {
    return ring2_set_error(RING2_E_ARGUMENT, "position %llu; expected %llu to %llu",
                           static_cast<unsigned long long>(position),
                           static_cast<unsigned long long>(consumer->released),
                           static_cast<unsigned long long>(consumer->cursor));
  }
  if (position == consumer->released) return RING2_OK;
  ring2_header *header = consumer->segment.header;
  // The payload first: a producer that sees the new meta_tail may already count on its space.
  store_release(header->payload_tail, payload_end(consumer, position - 1));
  store_release(header->meta_tail, position);
  consumer->released = position;
  return RING2_OK;
}

int ring2_gather(ring2_consumer *consumer, const ring2_slice *slice, void *out) {
  if (consumer == nullptr || slice == nullptr || out == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null consumer, slice or target");
  }
  if (!slice_is_inside(*slice, consumer->segment.payload_bytes)) return outside(*slice);
  uint64_t dims[4];
  for (uint32_t axis = 0; axis < slice->ndim; ++axis) dims[axis] = slice->dims[axis];
  gather(consumer->segment.payload + slice->payload_offset, dims, slice->strides, slice->ndim,
         dtype_bytes(slice->dtype), static_cast<uint8_t *>(out));
  return RING2_OK;
}

int ring2_measure(ring2_consumer *consumer, ring2_fold *fold, ring2_track *track,
                  ring2_slice *slices, uint64_t count) {
  if (consumer == nullptr || (slices == nullptr && count > 0)) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null consumer or slice array");
  }
  const int sized = check_file_size(consumer);
  if (sized != RING2_OK) return sized;
  if (track != nullptr) {
    track_set_ring(track, consumer->segment.payload, consumer->segment.payload_bytes,
                   consumer->released);
  }
  for (uint64_t i = 0; i < count; ++i) {
    ring2_slice &slice = slices[i];
    if (slice.kind != RING2_KIND_TENSOR || slice.action == RING2_ACTION_DROP) continue;
    // Without a step nobody knows which rows are tokens: such a tensor has no statistics.
    if ((slice.flags & RING2_SLICE_UNATTRIBUTED) != 0) continue;
    if (!slice_is_inside(slice, consumer->segment.payload_bytes)) return outside(slice);
    const int measured =
        measure_slice(consumer->segment.payload + slice.payload_offset, fold, track, &slice);
    if (measured != RING2_OK) return measured;
  }
  return RING2_OK;
}

}  // extern "C"
