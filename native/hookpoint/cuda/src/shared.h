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
constexpr uint32_t kRuns = 64;         // parts of axis 0 that a step may hold
constexpr uint32_t kFences = 256;      // records held back at the same time
constexpr uint64_t kPayloadAlign = 256;  // of a payload in GPU memory: whole cache lines, any vector width

// Why the GPU could not take a tensor; the host maps them to the segment's loss reasons.
enum CudaLoss : uint32_t {
  kLossEntries = 0,    // no free entry
  kLossPayload = 1,    // no room for the bytes
  kLossOversized = 2,  // larger than the GPU's ring
  kLossAmbiguous = 3,  // of a graph, and nobody could say which rows of which step it is
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

// What the blocks of one launch tell each other. One per stream and number of blocks, or per node of a
// graph. A graph may be instantiated twice and run twice at the same time, with the same parameters: its
// blocks then form groups in the order in which they arrive, as many in each as a launch has. Zero at first.
struct CudaScratch {
  uint64_t arrivals;    // blocks that ever came
  uint64_t departures;  // and left
  uint64_t ready;       // groups that were given their place, or none
  int64_t ran_for;      // of a graph's node: 1 + the step of its last replay
  // Of the group that is under way.
  uint64_t sequence_after;  // 1 + the sequence; 0: left out
  uint64_t position;        // bit 0: only the step's runs of axis 0
  uint64_t bytes;
  int64_t step;
};
static_assert(sizeof(CudaScratch) == 64, "no two share a cache line half");

// The parts of axis 0 that a step holds, one behind the other; with count 0: all of it.
struct CudaRuns {
  uint32_t count;
  uint32_t length;  // of the axis
  uint32_t start[kRuns];
  uint32_t rows[kRuns];
};

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
  // Of the open step, for graphs. Written only while no other step is open.
  uint64_t wanted[kHooks * kLayerWords];
  CudaRuns runs;
};

// Parameters of the capture kernel: constant in a graph.
struct CudaCall {
  CudaControl *control;
  CudaScratch *scratch;  // null with one block outside of a graph
  const void *data;
  const int32_t *rows;  // null, or how many indices of axis 0 hold anything
  uint64_t bytes;
  uint64_t row_bytes;   // of one index of axis 0
  uint64_t row_stride;  // bytes from one to the next where they are read
  int64_t step;         // of an eager launch
  uint32_t in_graph;    // step, wanted bits and runs are read from the control block
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
