// The Python producer's side of it: slots, steps and ways as PyTorch's operator uses them, on simulated
// GPUs. The sources are those of native/hookpoint/python.
#include <gtest/gtest.h>

#include <algorithm>

#include "cuda_helpers.h"
#include "simulated_torch.h"

extern "C" {
#include "torch_cuda.h"
#include "torch_slots.h"

int32_t ring2_torch_add(ring2_producer *producer);
void ring2_torch_remove(int32_t slot);
void ring2_torch_set_step(int32_t slot, int64_t step);
int ring2_torch_end_step(int32_t slot);
void ring2_torch_push(int32_t slot);
void ring2_torch_pop(int32_t slot);
int ring2_torch_set_runs(int32_t slot, int64_t length, uint32_t count, const uint32_t *pairs);
int ring2_torch_cuda_add(int32_t slot, int32_t device, uint64_t ring_bytes, const char *libtorch_cuda);
const char *ring2_torch_cuda_error(void);
int ring2_torch_cuda_counts(int32_t slot, int32_t device, uint64_t *out);
int ring2_torch_write_behind(int32_t slot, uint32_t kind, const char *json, uint64_t bytes);
}

using namespace ring2_cuda_test;
namespace simulation = ring2_simulation;

namespace {

constexpr uint32_t kHook = RING2_HOOK_RESID_PRE;
constexpr int32_t kGpus = 2;
constexpr uint64_t kRing = 1 << 20;

// A producer in a slot with a way from each of two GPUs, and this thread's streams on them.
struct Torch : Gpu {
  Torch() {
    Gpu::close();  // the ways are the slot's
    for (int32_t device = 0; device < kGpus; ++device) {
      streams[device] = simulation::create_stream(device);
      simulated_torch_use(device, streams[device]);
    }
    slot = ring2_torch_add(producer);
    for (int32_t device = 0; device < kGpus; ++device) {
      EXPECT_EQ(ring2_torch_cuda_add(slot, device, kRing, RING2_SIMULATED_TORCH_FILE), 0)
          << ring2_torch_cuda_error();
    }
  }
  ~Torch() {
    ring2_torch_remove(slot);
    for (const CUstream one : streams) simulation::destroy_stream(one);
    for (int32_t device = 0; device < kGpus; ++device) simulated_torch_use(device, nullptr);
  }

  bool copy(int32_t device, int32_t layer, const std::vector<uint32_t> &values) {
    const ring2_tensor facts =
        tensor(kHook, layer, ring2_slot_step(slot), {static_cast<int64_t>(values.size())}, RING2_DTYPE_INT32);
    return ring2_torch_cuda_copy(slot, device, &facts, values.data(), ring2_slot_step(slot));
  }
  std::shared_ptr<simulation::Graph> graph(int32_t device, int32_t layer, const std::vector<uint32_t> &values) {
    simulation::begin_capture(streams[device]);
    EXPECT_TRUE(copy(device, layer, values));
    return simulation::end_capture(streams[device]);
  }
  // Reads what came, as pairs of the step and the first word.
  std::vector<std::pair<int64_t, uint32_t>> words(size_t wanted) {
    EXPECT_TRUE(read_until([&] { return tensors() >= wanted; }));
    std::vector<std::pair<int64_t, uint32_t>> found;
    for (const Seen &one : all(RING2_KIND_TENSOR)) {
      uint32_t word = 0;
      memcpy(&word, one.bytes.data(), sizeof word);
      found.push_back({one.step, word});
    }
    return found;
  }

  int32_t slot = -1;
  CUstream streams[kGpus] = {};
};

using Words = std::vector<std::pair<int64_t, uint32_t>>;

TEST(CudaTorch, CopiesFromEveryGpuOfAStepAndReplaysItsGraphs) {
  const std::vector<uint32_t> eager = {7}, replayed = {8};
  Torch torch;
  const auto graph = torch.graph(1, 1, replayed);
  torch.step(0, 1);
  ring2_torch_set_step(torch.slot, 0);
  EXPECT_TRUE(torch.copy(0, 0, eager));
  simulation::replay(graph, torch.streams[1]);
  EXPECT_EQ(ring2_torch_end_step(torch.slot), 0);
  simulation::replay(graph, torch.streams[1]);  // in no step
  Words words = torch.words(2);
  std::sort(words.begin(), words.end());
  EXPECT_EQ(words, (Words{{0, 7}, {0, 8}}));
  uint64_t counts[7];
  ASSERT_EQ(ring2_torch_cuda_counts(torch.slot, 1, counts), 1);
  EXPECT_EQ(counts[0], 1u);
  EXPECT_EQ(ring2_torch_cuda_counts(torch.slot, 2, counts), 0);
}

TEST(CudaTorch, LeavesOutTheRowsThatNobodyWantsEagerAndInGraphs) {
  const std::vector<uint32_t> values = {10, 11, 12, 13};
  Torch torch;
  const auto graph = torch.graph(0, 1, values);
  const uint32_t pairs[] = {1, 1, 3, 1};
  torch.step(0, 2);
  torch.step(1, 4);
  ASSERT_EQ(ring2_torch_set_runs(torch.slot, 4, 2, pairs), 1);
  ring2_torch_set_step(torch.slot, 0);
  EXPECT_TRUE(torch.copy(0, 0, values));
  simulation::replay(graph, torch.streams[0]);
  ring2_torch_end_step(torch.slot);
  ring2_torch_set_step(torch.slot, 1);
  simulation::replay(graph, torch.streams[0]);
  ring2_torch_end_step(torch.slot);
  torch.words(3);
  const std::vector<Seen> seen = torch.all(RING2_KIND_TENSOR);
  const std::vector<uint32_t> part = {11, 13};
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(seen[i].bytes.size(), 8u);
    EXPECT_EQ(memcmp(seen[i].bytes.data(), part.data(), 8), 0);
  }
  ASSERT_EQ(seen[2].bytes.size(), 16u);
  EXPECT_EQ(memcmp(seen[2].bytes.data(), values.data(), 16), 0);
}

TEST(CudaTorch, GoesOnWithTheOuterStepBehindAnInnerOne) {
  const std::vector<uint32_t> values = {5};
  Torch torch;
  const auto before = torch.graph(0, 0, values), inside = torch.graph(0, 1, values),
             after = torch.graph(0, 2, values);
  torch.step(0, 1);
  torch.step(1, 1);
  ring2_torch_set_step(torch.slot, 0);
  simulation::replay(before, torch.streams[0]);
  ring2_torch_push(torch.slot);
  ring2_torch_set_step(torch.slot, 1);
  simulation::replay(inside, torch.streams[0]);
  ring2_torch_pop(torch.slot);
  simulation::replay(after, torch.streams[0]);
  ring2_torch_end_step(torch.slot);
  EXPECT_EQ(torch.words(3), (Words{{0, 5}, {1, 5}, {0, 5}}));
}

TEST(CudaTorch, WritesARequestsEndBehindWhatEveryGpuCaptured) {
  const std::vector<uint32_t> values = {5};
  Torch torch;
  torch.step(0, 1);
  ring2_torch_set_step(torch.slot, 0);
  simulation::hold(torch.streams[0]);
  EXPECT_TRUE(torch.copy(0, 0, values));
  EXPECT_TRUE(torch.copy(1, 1, values));
  ring2_torch_end_step(torch.slot);
  EXPECT_EQ(ring2_torch_write_behind(torch.slot, RING2_KIND_REQUEST_END, "{}", 2), 1);
  torch.words(1);
  EXPECT_EQ(torch.count(RING2_KIND_REQUEST_END), 0u);
  simulation::go(torch.streams[0]);
  ASSERT_TRUE(torch.read_until([&] { return torch.count(RING2_KIND_REQUEST_END) == 1; }));
  EXPECT_EQ(torch.tensors(), 2u);
}

TEST(CudaTorch, OpensAWayOnceAndSaysWhyItOpensNone) {
  Torch torch;
  const size_t modules = simulation::loaded_modules();
  EXPECT_EQ(ring2_torch_cuda_add(torch.slot, 0, kRing, RING2_SIMULATED_TORCH_FILE), 0);
  EXPECT_EQ(simulation::loaded_modules(), modules);
  EXPECT_EQ(ring2_torch_cuda_add(torch.slot, 0, kRing, "/nowhere/libtorch_cuda.so"), -1);
  EXPECT_NE(std::string(ring2_torch_cuda_error()).find("is not loaded"), std::string::npos);
  EXPECT_EQ(ring2_torch_cuda_add(torch.slot, 99, kRing, RING2_SIMULATED_TORCH_FILE), -1);
  EXPECT_NE(std::string(ring2_torch_cuda_error()).find("beyond"), std::string::npos);
  EXPECT_EQ(ring2_torch_cuda_add(torch.slot, 5, kRing, RING2_SIMULATED_TORCH_FILE), -1);
  EXPECT_NE(std::string(ring2_torch_cuda_error()).find("finding the GPU"), std::string::npos);
  EXPECT_EQ(ring2_torch_cuda_add(63, 0, kRing, RING2_SIMULATED_TORCH_FILE), -1);
  EXPECT_NE(std::string(ring2_torch_cuda_error()).find("closed"), std::string::npos);
}

TEST(CudaTorch, ClosesItsWaysWithTheSlotAndLetsGraphsRunOn) {
  const std::vector<uint32_t> values = {5};
  Torch torch;
  const auto graph = torch.graph(0, 0, values);
  torch.step(0, 1);
  ring2_torch_set_step(torch.slot, 0);
  simulation::replay(graph, torch.streams[0]);
  EXPECT_TRUE(torch.copy(1, 1, values));
  ring2_torch_remove(torch.slot);
  EXPECT_EQ(simulation::registrations(), 0u);
  EXPECT_FALSE(ring2_torch_cuda_has(torch.slot));
  EXPECT_FALSE(torch.copy(0, 0, values));
  ring2_torch_set_step(torch.slot, 1);
  simulation::replay(graph, torch.streams[0]);
  simulation::synchronize(torch.streams[0]);
  torch.read();
  EXPECT_EQ(torch.tensors(), 2u);
  EXPECT_TRUE(simulation::is_balanced());
}

}  // namespace
