// Bounds of the CUDA part.
#ifndef RING2_CUDA_BOUNDS_H
#define RING2_CUDA_BOUNDS_H

#include <chrono>
#include <cstdint>

namespace ring2_cuda_limits {
#ifdef RING2_CUDA_SIMULATED
constexpr uint32_t kEntries = 256;  // so that tests come around the queue
constexpr uint32_t kScratches = 64;
#else
constexpr uint32_t kEntries = 16384;  // 2 MiB of pinned memory; 20 steps of everything of 36 layers
constexpr uint32_t kScratches = 65536;  // 4 MiB of GPU memory; nodes of graphs, and large tensors of streams
#endif
constexpr uint32_t kThreads = 256;            // of a block
constexpr uint64_t kBlockBytes = 32 << 10;    // a block copies at least this much
constexpr uint32_t kBlocksPerProcessor = 2;   // at most: the copy must leave room for the model's kernels
constexpr uint32_t kBatchEntries = 32;        // copies behind one event
constexpr uint32_t kBatches = 64;             // events in flight
constexpr uint32_t kHeldRecords = 128;        // records held back: fewer than fences
// The exporter remembers 256 steps of a segment; an older one is announced again in time.
constexpr uint64_t kStepsRemembered = 128;
constexpr uint64_t kStepsKept = 16384;        // to be announced again: as many as there may be entries
constexpr uint64_t kStepRowsKept = 262144;    // of all of them, 32 bytes each
constexpr std::chrono::microseconds kPollBusy{50};   // between looks while tensors come
constexpr std::chrono::microseconds kPollIdle{1000};  // after kIdleAfter without one
constexpr std::chrono::milliseconds kIdleAfter{1000};
constexpr std::chrono::seconds kCloseTimeout{10};
}  // namespace ring2_cuda_limits

#endif
