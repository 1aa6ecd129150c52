// The kernels: reserve a place in the GPU's ring, copy a tensor into it, publish an entry to the host.
//
// They run on the stream of the forward pass and never wait for the host: without room a tensor is counted
// and left out. All a launch needs at run time (its place, its step in a graph, what is wanted) is read
// from GPU memory, so a node of a CUDA graph does the right thing at every replay with the same parameters.
//
// Invariants: entries are published in any order and taken by the host in order of their sequence. The
// lock is held by single threads that are resident and wait for nobody, so it is always given back.
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
};

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

RING2_DEVICE Place reserve(const CudaCall &call) {
  CudaControl *control = call.control;
  Place result = {0, 0, bytes_of(call), call.step, 0};
  lock(control);
  bool go = control->enabled != 0;
  if (go && call.in_graph != 0) {
    result.step = control->step;
    go = result.step >= 0 && wants(control, call);
    if (go && control->ambiguous != 0) {
      lose(control, kLossAmbiguous, result.bytes);
      go = false;
    }
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

// The block that comes first reserves for all. It is running, so the others may wait for it.
RING2_DEVICE Place enter(const CudaCall &call) {
  CudaScratch *scratch = call.scratch;
  if (grid_blocks() == 1) return reserve(call);
  if (count_device(&scratch->arrivals) == 0) {
    const Place result = reserve(call);
    scratch->sequence = result.sequence;
    scratch->position = result.position;
    scratch->bytes = result.bytes;
    scratch->step = result.step;
    scratch->taken = result.taken;
    store_release_device(&scratch->ready, 1);
    return result;
  }
  while (load_acquire_device(&scratch->ready) == 0) back_off();
  return {scratch->sequence, scratch->position, scratch->bytes, scratch->step, scratch->taken};
}

RING2_DEVICE void publish(const CudaCall &call, const Place &place) {
  const CudaControl *control = call.control;
  CudaEntry *entry = control->entries + place.sequence % control->entry_count;
  entry->position = place.position;
  entry->bytes = place.bytes;
  entry->step = place.step;
  for (uint32_t axis = 0; axis < kDims; ++axis) entry->dims[axis] = call.dims[axis];
  if (call.rows != nullptr && call.row_bytes > 0) {
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

// The block that leaves last publishes, and leaves the scratch as the next launch expects it.
RING2_DEVICE void leave(const CudaCall &call, const Place &place) {
  CudaScratch *scratch = call.scratch;
  if (grid_blocks() > 1) {
    if (count_device(&scratch->departures) != grid_blocks() - 1) return;
    scratch->arrivals = 0;
    scratch->departures = 0;
    scratch->ready = 0;
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
RING2_DEVICE void copy(const CudaCall &call, const Place &place) {
  const Element *from = static_cast<const Element *>(call.data);
  Element *to = reinterpret_cast<Element *>(call.control->payload +
                                            place.position % call.control->payload_bytes);
  const uint64_t count = place.bytes / sizeof(Element);
  const uint64_t stride = static_cast<uint64_t>(grid_blocks()) * block_threads();
  uint64_t index = static_cast<uint64_t>(block_index()) * block_threads() + thread_index();
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

}  // namespace

// One tensor into the GPU's ring.
RING2_KERNEL ring2_capture(const CudaCall call) {
  RING2_BLOCK_SHARED(Place, place);
  if (thread_index() == 0) place = enter(call);
  block_barrier();
  if (place.taken != 0) {
    switch (call.width) {
      case 16: copy<Vector16>(call, place); break;
      case 8: copy<uint64_t>(call, place); break;
      case 4: copy<uint32_t>(call, place); break;
      case 2: copy<uint16_t>(call, place); break;
      default: copy<uint8_t>(call, place); break;
    }
  }
  block_barrier();
  if (thread_index() == 0) leave(call, place);
}

// Opens a step for the graphs that are replayed behind it in this stream.
RING2_KERNEL ring2_begin_step(CudaControl *control, const int64_t step, const CudaWanted wanted) {
  if (thread_index() == 0) {
    lock(control);
    if (control->open_steps > 0) control->ambiguous = 1;
    control->open_steps += 1;
    control->step = step;
  }
  block_barrier();
  for (uint32_t i = thread_index(); i < kHooks * kLayerWords; i += block_threads()) {
    control->wanted[i] = wanted.words[i];
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
