// What runs on the model's thread: launches of the kernels, and nothing that waits.
#include <algorithm>
#include <cstring>
#include <utility>

#include "gather.h"
#include "transport.h"

using namespace ring2_cuda_driver;
using namespace ring2_cuda_internal;
using namespace ring2_cuda_limits;
using namespace ring2_cuda_shared;

namespace {

// Its handle names another stream in every thread, so it has no scratch of its own.
const CUstream kPerThreadStream = reinterpret_cast<CUstream>(uintptr_t{2});

enum class StreamState { kPlain, kCapturing, kUnusable };

StreamState state_of(const ring2_cuda *cuda, CUstream stream) {
  CUstreamCaptureStatus status = static_cast<CUstreamCaptureStatus>(kCaptureNone);
  // Fails on the default stream while another one is captured: a launch there would spoil that capture.
  if (cuda->driver->stream_is_capturing(stream, &status) != kSuccess) return StreamState::kUnusable;
  if (static_cast<int>(status) == kCaptureNone) return StreamState::kPlain;
  return static_cast<int>(status) == kCaptureActive ? StreamState::kCapturing
                                                    : StreamState::kUnusable;
}

bool launch(ring2_cuda *cuda, CUfunction function, unsigned blocks, unsigned threads, CUstream stream,
            void **arguments) {
  const CUresult result =
      cuda->driver->launch(function, blocks, 1, 1, threads, 1, 1, 0, stream, arguments, nullptr);
  return result == kSuccess;
}

// A scratch that no other launch uses at the same time, but of the same node of a graph; 0 when there is
// none left.
CUdeviceptr scratch_for(ring2_cuda *cuda, CUstream stream, unsigned blocks, bool in_graph) {
  if (!in_graph && stream == kPerThreadStream) return 0;
  const std::lock_guard<std::mutex> guard(cuda->scratch_lock);
  if (!in_graph) {
    const auto found = cuda->stream_scratch.find({stream, blocks});
    if (found != cuda->stream_scratch.end()) {
      return cuda->scratch_memory + found->second * sizeof(CudaScratch);
    }
  }
  const uint32_t index = cuda->scratches_used;
  if (index >= kScratches) return 0;
  if (!in_graph) cuda->stream_scratch.emplace(std::pair(stream, blocks), index);
  cuda->scratches_used = index + 1;
  return cuda->scratch_memory + index * sizeof(CudaScratch);
}

// False for more than a launch can carry.
bool fill_runs(const ring2_run *runs, uint32_t run_count, int64_t length, CudaRuns *out) {
  *out = {};
  if (run_count == 0) return true;
  if (run_count > kRuns || length < 0 || length > INT32_MAX) return false;
  out->count = run_count;
  out->length = static_cast<uint32_t>(length);
  for (uint32_t i = 0; i < run_count; ++i) {
    if (int64_t{runs[i].start} + runs[i].count > length) return false;
    out->start[i] = runs[i].start;
    out->rows[i] = runs[i].count;
  }
  return true;
}

// What a launch copies: all of the tensor, what lies before `rows`, or `runs`.
struct Part {
  const int32_t *rows = nullptr;
  const CudaRuns *runs = nullptr;
};

bool fill_call(const ring2_cuda *cuda, const ring2_tensor &tensor, const void *data, bool in_rows,
               CudaCall *call) {
  std::memset(call, 0, sizeof *call);
  if (!plan_gather(tensor, data, in_rows, call)) return false;
  if (tensor.hook >= kHooks || tensor.layer < -1 || tensor.layer >= int32_t{RING2_LAYERS_MAX}) {
    return false;
  }
  call->control = reinterpret_cast<CudaControl *>(cuda->control_memory);
  call->data = data;
  call->hook = static_cast<uint16_t>(tensor.hook);
  call->layer = static_cast<int16_t>(tensor.layer);
  const uint16_t ranks[4] = {tensor.tp_rank, tensor.pp_rank, tensor.dp_rank, tensor.ep_rank};
  std::memcpy(call->ranks, ranks, sizeof ranks);
  return true;
}

int capture(ring2_cuda *cuda, CUstream stream, const ring2_tensor &tensor, const void *data,
            int64_t step, const Part &part) {
  if (cuda->broken.load(std::memory_order_relaxed)) return -1;
  const ContextScope scope(cuda);
  if (!scope.entered()) return -1;
  const StreamState state = state_of(cuda, stream);
  if (state == StreamState::kUnusable) return -1;
  const bool in_graph = state == StreamState::kCapturing;
  if (!in_graph && step < 0) return 0;
  const bool in_runs = !in_graph && part.runs != nullptr && part.runs->count > 0;
  CudaCall call;
  if (!fill_call(cuda, tensor, data, in_graph || in_runs || part.rows != nullptr, &call)) return -1;
  if (in_runs && part.runs->length != call.dims[0]) return -1;
  call.rows = part.rows;
  call.step = step;
  call.in_graph = in_graph ? 1 : 0;
  const uint64_t wanted_blocks = (call.bytes + kBlockBytes - 1) / kBlockBytes;
  unsigned blocks = static_cast<unsigned>(
      std::clamp<uint64_t>(wanted_blocks, 1, cuda->blocks_max));
  if (in_graph || blocks > 1) {
    const CUdeviceptr scratch = scratch_for(cuda, stream, blocks, in_graph);
    // A node without one could not tell its replays apart.
    if (scratch == 0 && in_graph) return -1;
    call.scratch = reinterpret_cast<CudaScratch *>(scratch);
    // One block needs none: slower, and right.
    if (scratch == 0) blocks = 1;
  }
  void *arguments[] = {&call, const_cast<CudaRuns *>(part.runs)};
  const CUfunction kernel = in_runs ? cuda->capture_runs : cuda->capture;
  if (!launch(cuda, kernel, blocks, kThreads, stream, arguments)) return -1;
  if (in_graph) cuda->graph_nodes.fetch_add(1, std::memory_order_relaxed);
  return 0;
}

// Has the GPU's copier wait with the record, too, when a fence could be launched.
void hold_behind(ring2_cuda *cuda, CUstream stream, const std::shared_ptr<HeldRecord> &record) {
  if (cuda->broken.load(std::memory_order_relaxed)) return;
  const ContextScope scope(cuda);
  if (!scope.entered() || state_of(cuda, stream) != StreamState::kPlain) return;
  const std::lock_guard<std::mutex> guard(cuda->held_lock);
  if (cuda->held.size() >= kHeldRecords) return;
  uint64_t token = cuda->fence_token + 1;
  CUdeviceptr control = cuda->control_memory;
  void *arguments[] = {&control, &token};
  if (!launch(cuda, cuda->fence, 1, 1, stream, arguments)) return;
  cuda->fence_token = token;
  record->waiting.fetch_add(1);
  cuda->held.push_back({token, record});
}

}  // namespace

extern "C" {

int ring2_cuda_capture(ring2_cuda *cuda, void *stream, const ring2_tensor *tensor, const void *data,
                       int64_t step) {
  return capture(cuda, static_cast<CUstream>(stream), *tensor, data, step, {});
}

int ring2_cuda_capture_rows(ring2_cuda *cuda, void *stream, const ring2_tensor *tensor,
                            const void *data, int64_t step, const int32_t *rows) {
  return capture(cuda, static_cast<CUstream>(stream), *tensor, data, step, {rows, nullptr});
}

int ring2_cuda_capture_runs(ring2_cuda *cuda, void *stream, const ring2_tensor *tensor, const void *data,
                            int64_t step, const ring2_run *runs, uint32_t run_count, int64_t length) {
  CudaRuns filled;
  if (!fill_runs(runs, run_count, length, &filled)) return -1;
  return capture(cuda, static_cast<CUstream>(stream), *tensor, data, step, {nullptr, &filled});
}

int ring2_cuda_capturing(const ring2_cuda *cuda, void *stream) {
  const ContextScope scope(cuda);
  return scope.entered() && state_of(cuda, static_cast<CUstream>(stream)) == StreamState::kCapturing;
}

int ring2_cuda_begin_step(ring2_cuda *cuda, void *stream, int64_t step, const uint64_t *wanted,
                          const ring2_run *runs, uint32_t run_count, int64_t length) {
  const CUstream in = static_cast<CUstream>(stream);
  if (cuda->broken.load(std::memory_order_relaxed)) return 0;
  const ContextScope scope(cuda);
  if (!scope.entered() || state_of(cuda, in) != StreamState::kPlain) return 0;
  CUdeviceptr control = cuda->control_memory;
  // By value: the host may be many steps ahead of the GPU, and each launch keeps its own copy.
  CudaRuns filled;
  CudaWanted words = {};
  const bool known = fill_runs(runs, run_count, length, &filled);
  if (wanted != nullptr && known) std::memcpy(words.words, wanted, sizeof words.words);
  void *arguments[] = {&control, &step, &words, &filled};
  return launch(cuda, cuda->begin_step, 1, kHooks * kLayerWords, in, arguments) ? 1 : 0;
}

void ring2_cuda_end_step(ring2_cuda *cuda, void *stream) {
  const CUstream in = static_cast<CUstream>(stream);
  if (cuda->broken.load(std::memory_order_relaxed)) return;
  const ContextScope scope(cuda);
  if (!scope.entered() || state_of(cuda, in) != StreamState::kPlain) return;
  CUdeviceptr control = cuda->control_memory;
  void *arguments[] = {&control};
  launch(cuda, cuda->end_step, 1, 1, in, arguments);
}

int ring2_cuda_write_behind(ring2_cuda *const *ways, void *const *streams, uint32_t count,
                            uint32_t kind, const char *json, uint64_t bytes) {
  const auto record = std::make_shared<HeldRecord>();
  record->kind = kind;
  record->json.assign(json, bytes);
  for (uint32_t i = 0; i < count; ++i) {
    hold_behind(ways[i], static_cast<CUstream>(streams[i]), record);
  }
  return record->waiting.fetch_sub(1) > 1 ? 1 : 0;
}

void ring2_cuda_count(const ring2_cuda *cuda, ring2_cuda_counts *out) {
  out->copied_records = cuda->copied_records.load(std::memory_order_relaxed);
  out->copied_bytes = cuda->copied_bytes.load(std::memory_order_relaxed);
  out->dropped_records = cuda->dropped_records.load(std::memory_order_relaxed);
  out->dropped_bytes = cuda->dropped_bytes.load(std::memory_order_relaxed);
  out->graph_nodes = cuda->graph_nodes.load(std::memory_order_relaxed);
  out->pinned = cuda->pinned ? 1 : 0;
  out->broken = cuda->broken.load(std::memory_order_relaxed) ? 1 : 0;
}

}  // extern "C"
