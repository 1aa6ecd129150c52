// What the host and the kernels of the CUDA part share: the layout of the pinned page, of the entries in
// it, and of the control block in GPU memory. Not part of the segment's format: nobody but this process
// and its GPU reads it.
//
// Every word has one writer. On the GPU, all of CudaControl but its constants is written under its
// lock. An entry belongs to the kernel that reserved it until `ready` says otherwise, and then to the
// copier until `entry_tail` has passed it.
#ifndef RING2_CUDA_SHARED_H
#define RING2_CUDA_SHARED_H

#include <stdint.h>

namespace ring2_cuda_shared {

constexpr uint32_t kDims = 8;          // RING2_DIMS_MAX
constexpr uint32_t kHooks = 32;        // RING2_HOOKS_MAX
constexpr uint32_t kLayerWords = 4;    // RING2_LAYERS_MAX / 64
constexpr uint32_t kFences = 256;      // records held back at the same time
constexpr uint64_t kPayloadAlign = 256;  // of a payload in GPU memory: whole cache lines, any vector width

// Why the GPU could not take a tensor; the host maps them to the segment's loss reasons.
enum CudaLoss : uint32_t {
  kLossEntries = 0,    // no free entry
  kLossPayload = 1,    // no room for the bytes
  kLossOversized = 2,  // larger than the GPU's ring
  kLossAmbiguous = 3,  // replayed while the steps of two streams were open: nobody could attribute it
  kLossCount = 4
};

struct CudaLossCount {
  uint64_t records;
  uint64_t bytes;
};

// One captured tensor, in pinned memory.
struct CudaEntry {
  uint64_t ready;     // sequence + 1, stored last with release at system scope
  uint64_t position;  // ever-growing byte position; offset = position % payload_bytes
  uint64_t bytes;
  int64_t step;
  uint32_t dims[kDims];
  uint16_t ranks[4];  // tp, pp, dp, ep
  uint16_t hook;
  int16_t layer;
  uint8_t dtype;
  uint8_t ndim;
  uint8_t reserved[50];
};
static_assert(sizeof(CudaEntry) == 128, "an entry is two cache lines");

// A place in the stream of entries: `head` entries had been reserved when the fence ran.
struct CudaFence {
  uint64_t token;  // stored last, with release at system scope
  uint64_t head;
};

// Pinned memory that both sides map. The entries follow it.
struct CudaPage {
  // Written by the host, read by the kernels.
  uint64_t entry_tail;    // entries that may be reserved again: below this + entry_count
  uint64_t payload_tail;  // bytes that may be overwritten: below this + payload_bytes
  uint8_t reserved0[112];
  // Written by the kernels, read by the host.
  CudaLossCount losses[kLossCount];
  uint8_t reserved1[64];
  CudaFence fences[kFences];
};
static_assert(sizeof(CudaPage) % 128 == 0, "entries are aligned");

// What the blocks of one launch tell each other. One per stream, or per node of a graph: launches that
// share one never run at the same time. All zero between launches.
struct CudaScratch {
  uint32_t arrivals;
  uint32_t departures;
  uint32_t ready;
  uint32_t taken;
  uint64_t sequence;
  uint64_t position;
  uint64_t bytes;
  int64_t step;
  uint64_t reserved[2];
};
static_assert(sizeof(CudaScratch) == 64, "no two share a cache line half");

// In GPU memory.
struct CudaControl {
  // Constant after creation.
  CudaPage *page;
  CudaEntry *entries;
  uint8_t *payload;
  uint64_t entry_count;
  uint64_t payload_bytes;
  // Under the lock.
  uint32_t lock;
  uint32_t enabled;   // 0 once closed: kernels of graphs that live on return at once
  uint32_t open_steps;
  uint32_t ambiguous;  // two streams had a step open at the same time
  int64_t step;        // of graphs; -1: none is open
  uint64_t entry_head;
  uint64_t payload_head;
  uint64_t entry_tail_seen;
  uint64_t payload_tail_seen;
  CudaLossCount losses[kLossCount];
  uint64_t wanted[kHooks * kLayerWords];  // of the open step, for graphs
};

// Parameters of the capture kernel: constant in a graph.
struct CudaCall {
  CudaControl *control;
  CudaScratch *scratch;  // null with one block
  const void *data;
  const int32_t *rows;  // null, or how many indices of axis 0 hold anything
  uint64_t bytes;
  uint64_t row_bytes;  // of one index of axis 0
  int64_t step;        // of an eager launch
  uint32_t in_graph;   // step and wanted bits are read from the control block
  // The gather: `width` bytes at a time, row-major, axes merged where memory allows.
  uint32_t width;
  uint32_t axes;
  uint32_t axis_lengths_fit32;
  uint64_t axis_length[kDims];
  int64_t axis_stride[kDims];  // in units of `width`
  // What goes into the entry.
  uint32_t dims[kDims];
  uint16_t ranks[4];
  uint16_t hook;
  int16_t layer;
  uint8_t dtype;
  uint8_t ndim;
  uint16_t reserved;
};

struct CudaWanted {
  uint64_t words[kHooks * kLayerWords];
};

}  // namespace ring2_cuda_shared

#endif
