// The kernels: reserve a place in the GPU's ring, copy a tensor into it, publish an entry to the host.
//
// They run on the stream of the forward pass and never wait for the host: without room a tensor is counted
// and left out. All a launch needs at run time (its place, its step in a graph, what is wanted) is read
// from GPU memory, so a node of a CUDA graph does the right thing at every replay with the same parameters.
//
// Invariants: entries are published in any order and taken by the host in order of their sequence. The
// lock is held by single threads that are resident and wait for nobody, so it is always given back. A block
// waits only for blocks that came before it, which are resident, too.
#include "device.h"
#include "shared.h"

using namespace ring2_cuda_shared;

namespace {

struct Place {
  uint64_t sequence;
  uint64_t position;
  uint64_t bytes;
  int64_t step;
  uint32_t taken;
  uint32_t in_runs;  // only the step's runs of axis 0
  uint32_t part;     // of the copy that this block does
};

constexpr uint64_t kInRuns = 1;  // beside a position, which is aligned

RING2_DEVICE void lock(CudaControl *control) {
  while (!try_lock_device(&control->lock)) back_off();
}

RING2_DEVICE void unlock(CudaControl *control) { store_release_device(&control->lock, 0); }

// The caller holds the lock, so the host sees one writer of each count.
RING2_DEVICE void lose(CudaControl *control, uint32_t reason, uint64_t bytes) {
  CudaLossCount &count = control->losses[reason];
  count.records += 1;
  count.bytes += bytes;
  store_relaxed_system(&control->page->losses[reason].bytes, count.bytes);
  store_release_system(&control->page->losses[reason].records, count.records);
}

RING2_DEVICE bool wants(const CudaControl *control, const CudaCall &call) {
  const uint32_t bit = call.layer < 0 ? 0 : static_cast<uint32_t>(call.layer);
  return (control->wanted[call.hook * kLayerWords + bit / 64] >> (bit % 64) & 1) != 0;
}

// Where `bytes` would begin: aligned, and in one piece; the rest of a lap that is too short is left out.
RING2_DEVICE uint64_t place(const CudaControl *control, uint64_t bytes) {
  const uint64_t capacity = control->payload_bytes;
  const uint64_t position = (control->payload_head + kPayloadAlign - 1) / kPayloadAlign * kPayloadAlign;
  const uint64_t offset = position % capacity;
  return offset + bytes <= capacity ? position : position + capacity - offset;
}

// Finds room; the tails are read from the host's memory only when those last seen leave none.
RING2_DEVICE bool find_room(CudaControl *control, uint64_t bytes, uint64_t *position) {
  if (bytes > control->payload_bytes) {
    lose(control, kLossOversized, bytes);
    return false;
  }
  const CudaPage *page = control->page;
  if (control->entry_head - control->entry_tail_seen >= control->entry_count) {
    // Pairs with the copier's release: it has read the entry that stood there.
    control->entry_tail_seen = load_acquire_system(&page->entry_tail);
    if (control->entry_head - control->entry_tail_seen >= control->entry_count) {
      lose(control, kLossEntries, bytes);
      return false;
    }
  }
  *position = place(control, bytes);
  const uint64_t end = *position + bytes;
  if (end - control->payload_tail_seen <= control->payload_bytes) return true;
  // Pairs with the copier's release: the bytes that lay there have reached the segment.
  control->payload_tail_seen = load_acquire_system(&page->payload_tail);
  if (end - control->payload_tail_seen <= control->payload_bytes) return true;
  control->entry_tail_seen = load_acquire_system(&page->entry_tail);
  if (control->entry_tail_seen == control->entry_head) {
    // The ring is empty: every byte is free, wherever the last payload ended.
    control->payload_tail_seen = *position;
    return true;
  }
  lose(control, kLossPayload, bytes);
  return false;
}

RING2_DEVICE uint64_t bytes_of(const CudaCall &call) {
  if (call.rows == nullptr) return call.bytes;
  const int32_t rows = *call.rows;
  const uint64_t bytes = rows > 0 ? static_cast<uint64_t>(rows) * call.row_bytes : 0;
  return bytes < call.bytes ? bytes : call.bytes;
}

// A run as far as it lies within the tensor, whatever is written there.
RING2_DEVICE uint64_t rows_of(const CudaCall &call, const CudaRuns &runs, uint32_t index) {
  const uint64_t length = call.dims[0];
  const uint64_t start = runs.start[index];
  if (start >= length) return 0;
  return runs.rows[index] < length - start ? runs.rows[index] : length - start;
}

RING2_DEVICE uint64_t bytes_of(const CudaCall &call, const CudaRuns &runs) {
  uint64_t rows = 0;
  for (uint32_t i = 0; i < runs.count && i < kRuns; ++i) rows += rows_of(call, runs, i);
  return rows * call.row_bytes;
}

// Whether this replay of a node is of the open step, and of no other. The caller holds the lock.
RING2_DEVICE bool belongs(const CudaCall &call, int64_t step) {
  CudaControl *control = call.control;
  if (step < 0 || !wants(control, call)) return false;
  // A node that runs a second time within a step: the graph was replayed twice, and one is not the step's.
  const bool again = call.scratch->ran_for == step + 1;
  call.scratch->ran_for = step + 1;
  const bool other_rows = control->runs.count != 0 && control->runs.length != call.dims[0];
  if (!again && !other_rows && control->ambiguous == 0) return true;
  lose(control, kLossAmbiguous, call.bytes);
  return false;
}

RING2_DEVICE Place reserve(const CudaCall &call, const CudaRuns *runs) {
  CudaControl *control = call.control;
  Place result = {0, 0, 0, call.step, 0, 0, 0};
  lock(control);
  bool go = control->enabled != 0;
  if (go && call.in_graph != 0) {
    result.step = control->step;
    go = belongs(call, result.step);
  }
  if (go) {
    result.in_runs = runs != nullptr && runs->count != 0 ? 1 : 0;
    result.bytes = result.in_runs != 0 ? bytes_of(call, *runs) : bytes_of(call);
  }
  if (go && find_room(control, result.bytes, &result.position)) {
    result.sequence = control->entry_head;
    result.taken = 1;
    control->entry_head += 1;
    control->payload_head = result.position + result.bytes;
  }
  unlock(control);
  return result;
}

// The block that comes first in its group reserves for all of it, when the group before has left.
RING2_DEVICE Place enter(const CudaCall &call, const CudaRuns *runs) {
  CudaScratch *scratch = call.scratch;
  if (scratch == nullptr) return reserve(call, runs);
  const uint64_t blocks = grid_blocks();
  const uint64_t ticket = count_device(&scratch->arrivals);
  const uint64_t group = ticket / blocks;
  const uint32_t part = static_cast<uint32_t>(ticket % blocks);
  if (part == 0) {
    while (load_acquire_device(&scratch->departures) != group * blocks) back_off();
    const Place result = reserve(call, runs);
    scratch->sequence_after = result.taken != 0 ? result.sequence + 1 : 0;
    scratch->position = result.position | (result.in_runs != 0 ? kInRuns : 0);
    scratch->bytes = result.bytes;
    scratch->step = result.step;
    store_release_device(&scratch->ready, group + 1);
    return result;
  }
  while (load_acquire_device(&scratch->ready) != group + 1) back_off();
  Place result = {0, scratch->position & ~kInRuns, scratch->bytes, scratch->step, 0, 0, part};
  result.in_runs = static_cast<uint32_t>(scratch->position & kInRuns);
  if (scratch->sequence_after == 0) return result;
  result.sequence = scratch->sequence_after - 1;
  result.taken = 1;
  return result;
}

RING2_DEVICE void publish(const CudaCall &call, const Place &place) {
  const CudaControl *control = call.control;
  CudaEntry *entry = control->entries + place.sequence % control->entry_count;
  entry->position = place.position;
  entry->bytes = place.bytes;
  entry->step = place.step;
  for (uint32_t axis = 0; axis < kDims; ++axis) entry->dims[axis] = call.dims[axis];
  if ((call.rows != nullptr || place.in_runs != 0) && call.row_bytes > 0) {
    entry->dims[0] = static_cast<uint32_t>(place.bytes / call.row_bytes);
  }
  for (uint32_t rank = 0; rank < 4; ++rank) entry->ranks[rank] = call.ranks[rank];
  entry->hook = call.hook;
  entry->layer = call.layer;
  entry->dtype = call.dtype;
  entry->ndim = call.ndim;
  // The payload of all blocks, and this entry, before the flag: the host starts a copy when it sees it.
  system_fence();
  store_release_system(&entry->ready, place.sequence + 1);
}

// The block that leaves last publishes; what it publishes is its own, the scratch may be the next group's.
RING2_DEVICE void leave(const CudaCall &call, const Place &place) {
  if (call.scratch != nullptr) {
    const uint64_t blocks = grid_blocks();
    if (count_device(&call.scratch->departures) % blocks != blocks - 1) return;
  }
  if (place.taken != 0) publish(call, place);
}

template <typename Index>
RING2_DEVICE int64_t source_of(const CudaCall &call, Index index) {
  int64_t source = 0;
  for (uint32_t axis = call.axes; axis-- > 1;) {
    const Index length = static_cast<Index>(call.axis_length[axis]);
    const Index rest = index / length;
    source += static_cast<int64_t>(index - rest * length) * call.axis_stride[axis];
    index = rest;
  }
  return source + static_cast<int64_t>(index) * call.axis_stride[0];
}

template <typename Element>
RING2_DEVICE void copy_piece(const CudaCall &call, const Element *from, Element *to, uint64_t bytes,
                             uint32_t part) {
  const uint64_t count = bytes / sizeof(Element);
  const uint64_t stride = static_cast<uint64_t>(grid_blocks()) * block_threads();
  uint64_t index = static_cast<uint64_t>(part) * block_threads() + thread_index();
  if (call.axes == 1 && call.axis_stride[0] == 1) {
    for (; index < count; index += stride) to[index] = from[index];
  } else if (call.axis_lengths_fit32 != 0) {
    for (; index < count; index += stride) {
      to[index] = from[source_of<uint32_t>(call, static_cast<uint32_t>(index))];
    }
  } else {
    for (; index < count; index += stride) to[index] = from[source_of<uint64_t>(call, index)];
  }
}

template <typename Element>
RING2_DEVICE void copy(const CudaCall &call, const CudaRuns *runs, const Place &place) {
  const uint8_t *from = static_cast<const uint8_t *>(call.data);
  uint8_t *to = call.control->payload + place.position % call.control->payload_bytes;
  if (place.in_runs == 0) {
    copy_piece(call, reinterpret_cast<const Element *>(from), reinterpret_cast<Element *>(to),
               place.bytes, place.part);
    return;
  }
  uint64_t done = 0;
  for (uint32_t i = 0; i < runs->count && i < kRuns && done < place.bytes; ++i) {
    const uint64_t left = place.bytes - done;
    uint64_t bytes = rows_of(call, *runs, i) * call.row_bytes;
    if (bytes > left) bytes = left;
    copy_piece(call, reinterpret_cast<const Element *>(from + runs->start[i] * call.row_stride),
               reinterpret_cast<Element *>(to + done), bytes, place.part);
    done += bytes;
  }
}

RING2_DEVICE void capture(const CudaCall &call, const CudaRuns *runs, Place &place) {
  if (thread_index() == 0) place = enter(call, runs);
  block_barrier();
  if (place.taken != 0) {
    switch (call.width) {
      case 16: copy<Vector16>(call, runs, place); break;
      case 8: copy<uint64_t>(call, runs, place); break;
      case 4: copy<uint32_t>(call, runs, place); break;
      case 2: copy<uint16_t>(call, runs, place); break;
      default: copy<uint8_t>(call, runs, place); break;
    }
  }
  block_barrier();
  if (thread_index() == 0) leave(call, place);
}

}  // namespace

// One tensor into the GPU's ring; in a graph, the rows of it that the step holds.
RING2_KERNEL ring2_capture(const CudaCall call) {
  RING2_BLOCK_SHARED(Place, place);
  capture(call, call.in_graph != 0 ? &call.control->runs : nullptr, place);
}

// Some rows of one, outside of a graph.
RING2_KERNEL ring2_capture_runs(const CudaCall call, const CudaRuns runs) {
  RING2_BLOCK_SHARED(Place, place);
  capture(call, &runs, place);
}

// Opens a step for the graphs that are replayed behind it in this stream.
RING2_KERNEL ring2_begin_step(CudaControl *control, const int64_t step, const CudaWanted wanted,
                              const CudaRuns runs) {
  RING2_BLOCK_SHARED(uint32_t, alone);
  if (thread_index() == 0) {
    lock(control);
    alone = control->open_steps == 0 ? 1 : 0;
    control->open_steps += 1;
    // Kernels of the step that is open may be reading its runs.
    if (alone != 0) {
      control->step = step;
      control->runs = runs;
    } else {
      control->ambiguous = 1;
    }
  }
  block_barrier();
  for (uint32_t i = thread_index(); i < kHooks * kLayerWords; i += block_threads()) {
    // What either step wants is lost, and counted.
    control->wanted[i] = wanted.words[i] | (alone != 0 ? 0 : control->wanted[i]);
  }
  block_barrier();
  if (thread_index() == 0) unlock(control);
}

RING2_KERNEL ring2_end_step(CudaControl *control) {
  if (thread_index() != 0) return;
  lock(control);
  if (control->open_steps > 0) control->open_steps -= 1;
  if (control->open_steps == 0) {
    control->ambiguous = 0;
    control->step = -1;
  }
  unlock(control);
}

// Tells the host which entries were reserved before this place in the stream.
RING2_KERNEL ring2_fence(CudaControl *control, const uint64_t token) {
  if (thread_index() != 0) return;
  lock(control);
  CudaFence *fence = &control->page->fences[token % kFences];
  store_relaxed_system(&fence->head, control->entry_head);
  store_release_system(&fence->token, token);
  unlock(control);
}
