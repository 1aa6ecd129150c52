// Steps, graphs, null mode, records behind tensors, failures, the end. On a simulated GPU.
#include "cuda_helpers.h"

#include <gtest/gtest.h>

using namespace ring2_cuda_test;
namespace simulation = ring2_simulation;
using simulation::Failure;

namespace {

constexpr uint32_t kHook = RING2_HOOK_RESID_PRE;
constexpr size_t kLayers = 3;

// A "model" of three layers whose buffers a graph fills anew at each replay.
struct Model {
  std::vector<uint32_t> layers[kLayers] = {std::vector<uint32_t>(20000), std::vector<uint32_t>(16),
                                           std::vector<uint32_t>(300)};

  ring2_tensor facts(size_t layer) const {
    return tensor(kHook, static_cast<int32_t>(layer), -1, {1, static_cast<int64_t>(layers[layer].size())},
                  RING2_DTYPE_INT32);
  }
  std::shared_ptr<simulation::Graph> graph(Gpu &gpu) {
    simulation::begin_capture(gpu.stream);
    for (size_t layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ(gpu.capture(facts(layer), layers[layer].data(), -1), 0);
    }
    return simulation::end_capture(gpu.stream);
  }
  void fill(Gpu &gpu, uint32_t value) {
    for (std::vector<uint32_t> &layer : layers) {
      const std::vector<uint32_t> values(layer.size(), value);
      simulation::write_behind(gpu.stream, layer.data(), values.data(), values.size() * 4);
    }
  }
};

uint32_t first_word(const Seen &one) {
  uint32_t value = 0;
  memcpy(&value, one.bytes.data(), 4);
  return value;
}

void *const *stream_of(const Gpu &gpu) { return reinterpret_cast<void *const *>(&gpu.stream); }

int begin(Gpu &gpu, CUstream stream, int64_t step) {
  const uint64_t *wanted = &ring2_producer_header(gpu.producer)->wanted[0][0];
  return ring2_cuda_begin_step(gpu.cuda, stream, step, wanted, nullptr, 0, 0);
}

void step_around(Gpu &gpu, const std::shared_ptr<simulation::Graph> &graph, int64_t step) {
  gpu.step(step, 1);
  EXPECT_EQ(begin(gpu, gpu.stream, step), 1);
  simulation::replay(graph, gpu.stream);
  ring2_cuda_end_step(gpu.cuda, gpu.stream);
}

TEST(CudaGraph, GivesEachReplayItsOwnStepThoughTheHostIsFarAhead) {
  Model model;
  Gpu gpu(8 << 20, {32 << 20, 4096});
  const auto graph = model.graph(gpu);
  EXPECT_EQ(gpu.counts().graph_nodes, kLayers);
  simulation::hold(gpu.stream);
  for (int64_t step = 0; step < 30; ++step) {
    model.fill(gpu, static_cast<uint32_t>(step) + 1000);
    step_around(gpu, graph, step);
  }
  simulation::go(gpu.stream);
  ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == 30 * kLayers; }));
  size_t index = 0;
  for (const Seen &one : gpu.all(RING2_KIND_TENSOR)) {
    EXPECT_EQ(one.step, static_cast<int64_t>(index / kLayers));
    EXPECT_EQ(one.layer, static_cast<int32_t>(index % kLayers));
    const std::vector<uint32_t> expected(model.layers[index % kLayers].size(), first_word(one));
    EXPECT_EQ(memcmp(one.bytes.data(), expected.data(), one.bytes.size()), 0);
    EXPECT_EQ(first_word(one), static_cast<uint32_t>(one.step) + 1000);
    ++index;
  }
}

TEST(CudaGraph, CapturesNothingAtCaptureTimeNorOutsideOfAStep) {
  Model model;
  Gpu gpu;
  const auto graph = model.graph(gpu);
  simulation::replay(graph, gpu.stream);
  simulation::synchronize(gpu.stream);
  const uint32_t value = 1;
  EXPECT_EQ(gpu.capture(tensor(kHook, 0, 0, {1, 1}), &value, -1), 0);
  step_around(gpu, graph, 0);
  ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() >= kLayers; }));
  gpu.close();
  gpu.read();
  EXPECT_EQ(gpu.tensors(), kLayers);
}

TEST(CudaGraph, OpensNoStepWhileItsStreamIsCaptured) {
  Gpu gpu;
  simulation::begin_capture(gpu.stream);
  EXPECT_EQ(begin(gpu, gpu.stream, 7), 0);
  EXPECT_EQ(ring2_cuda_write_behind(&gpu.cuda, stream_of(gpu), 1, RING2_KIND_REQUEST_END, "{}", 2), 0);
  EXPECT_NE(simulation::end_capture(gpu.stream), nullptr);
}

TEST(CudaGraph, CopiesOnlyWhatTheStepWants) {
  Model model;
  Gpu gpu;
  const auto graph = model.graph(gpu);
  ASSERT_EQ(ring2_consumer_want(gpu.consumer, kHook, 1, 0), RING2_OK);
  step_around(gpu, graph, 0);
  ASSERT_EQ(ring2_consumer_want(gpu.consumer, kHook, -2, 0), RING2_OK);
  step_around(gpu, graph, 1);
  ASSERT_EQ(ring2_consumer_want(gpu.consumer, kHook, 2, 1), RING2_OK);
  step_around(gpu, graph, 2);
  gpu.close();
  gpu.read();
  std::vector<std::pair<int64_t, int32_t>> got;
  for (const Seen &one : gpu.all(RING2_KIND_TENSOR)) got.push_back({one.step, one.layer});
  const std::vector<std::pair<int64_t, int32_t>> expected = {{0, 0}, {0, 2}, {2, 2}};
  EXPECT_EQ(got, expected);
  for (uint32_t reason = 0; reason < RING2_LOSS_REASONS_MAX; ++reason) EXPECT_EQ(lost(gpu.consumer, reason), 0u);
}

TEST(CudaGraph, CountsReplaysThatTwoOpenStepsClaim) {
  Model model;
  Gpu gpu;
  const auto graph = model.graph(gpu);
  const CUstream other = simulation::create_stream();
  gpu.step(0, 1);
  gpu.step(1, 1);
  EXPECT_EQ(begin(gpu, gpu.stream, 0), 1);
  simulation::replay(graph, gpu.stream);  // alone: step 0
  simulation::synchronize(gpu.stream);
  EXPECT_EQ(begin(gpu, other, 1), 1);
  simulation::synchronize(other);
  simulation::replay(graph, gpu.stream);  // whose?
  simulation::synchronize(gpu.stream);
  ring2_cuda_end_step(gpu.cuda, other);
  ring2_cuda_end_step(gpu.cuda, gpu.stream);
  simulation::synchronize(other);
  step_around(gpu, graph, 2);  // certain again
  gpu.close();
  gpu.read();
  EXPECT_EQ(gpu.tensors(), 2 * kLayers);
  for (const Seen &one : gpu.all(RING2_KIND_TENSOR)) EXPECT_NE(one.step, 1);
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_UNSUPPORTED), kLayers);
  simulation::destroy_stream(other);
}

TEST(CudaGraph, CountsWhatAStepReplaysTwice) {
  Model model;
  Gpu gpu;
  const auto graph = model.graph(gpu);
  gpu.step(0, 1);
  EXPECT_EQ(begin(gpu, gpu.stream, 0), 1);
  for (uint32_t value = 7; value < 9; ++value) {
    model.fill(gpu, value);
    simulation::replay(graph, gpu.stream);
  }
  ring2_cuda_end_step(gpu.cuda, gpu.stream);
  step_around(gpu, graph, 1);
  gpu.close();
  gpu.read();
  std::vector<std::pair<int64_t, uint32_t>> got;
  for (const Seen &one : gpu.all(RING2_KIND_TENSOR)) got.push_back({one.step, first_word(one)});
  const std::vector<std::pair<int64_t, uint32_t>> expected = {{0, 7}, {0, 7}, {0, 7},
                                                              {1, 8}, {1, 8}, {1, 8}};
  EXPECT_EQ(got, expected);
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_UNSUPPORTED), kLayers);
}

TEST(CudaGraph, SurvivesOneGraphThatRunsTwiceAtTheSameTime) {
  Model model;
  Gpu gpu(8 << 20, {32 << 20, 4096});
  const auto graph = model.graph(gpu);
  const CUstream other = simulation::create_stream();
  constexpr int64_t kRounds = 40;
  for (int64_t step = 0; step < kRounds; ++step) {
    const uint32_t value = static_cast<uint32_t>(step) + 1;
    model.fill(gpu, value);
    gpu.step(step, 1);
    EXPECT_EQ(begin(gpu, gpu.stream, step), 1);
    simulation::synchronize(gpu.stream);
    simulation::replay(graph, gpu.stream);
    simulation::replay(graph, other);
    simulation::synchronize(other);
    simulation::synchronize(gpu.stream);
    ring2_cuda_end_step(gpu.cuda, gpu.stream);
  }
  ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == kRounds * kLayers; }));
  for (const Seen &one : gpu.all(RING2_KIND_TENSOR)) {
    const size_t words = model.layers[static_cast<size_t>(one.layer)].size();
    const std::vector<uint32_t> expected(words, static_cast<uint32_t>(one.step) + 1);
    ASSERT_EQ(memcmp(one.bytes.data(), expected.data(), one.bytes.size()), 0) << one.step;
  }
  gpu.close();
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_UNSUPPORTED), kRounds * kLayers);
  simulation::destroy_stream(other);
}

TEST(CudaGraph, RefusesMoreNodesThanItCanTellApart) {
  Model model;
  Gpu gpu;
  simulation::begin_capture(gpu.stream);
  int refused = 0;
  for (int i = 0; i < 100; ++i) refused += gpu.capture(model.facts(1), model.layers[1].data(), -1) != 0;
  simulation::end_capture(gpu.stream);
  EXPECT_EQ(refused, 36);  // of 100, with 64 scratches
  EXPECT_EQ(gpu.counts().graph_nodes, 64u);
}

TEST(CudaGraph, WritesARecordBehindTheTensorsThatCameBefore) {
  Model model;
  Gpu gpu;
  const std::string end = "{\"key\":1}";
  simulation::hold(gpu.stream);
  for (int64_t step = 0; step < 4; ++step) {
    gpu.step(step, 1);
    ASSERT_EQ(gpu.capture(model.facts(0), model.layers[0].data(), step), 0);
  }
  ASSERT_EQ(ring2_cuda_write_behind(&gpu.cuda, stream_of(gpu), 1, RING2_KIND_REQUEST_END,
                                    end.data(), end.size()),
            1);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  gpu.read();
  EXPECT_EQ(gpu.count(RING2_KIND_REQUEST_END), 0u);
  simulation::go(gpu.stream);
  ASSERT_TRUE(gpu.read_until([&] { return gpu.count(RING2_KIND_REQUEST_END) == 1; }));
  EXPECT_EQ(gpu.seen.back().kind, uint32_t{RING2_KIND_REQUEST_END});
  EXPECT_EQ(gpu.tensors(), 4u);
}

TEST(CudaGraph, WritesWhatIsHeldBackAtTheEnd) {
  Gpu gpu;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(ring2_cuda_write_behind(&gpu.cuda, stream_of(gpu), 1, RING2_KIND_REQUEST_END, "{}", 2), 1);
  }
  gpu.close();
  gpu.read();
  EXPECT_EQ(gpu.count(RING2_KIND_REQUEST_END), 100u);
}

TEST(CudaTrouble, WorksWithoutPinnedMemory) {
  simulation::fail_next(Failure::kRegister);
  Model model;
  Gpu gpu;
  EXPECT_EQ(gpu.counts().pinned, 0u);
  gpu.step(0, 1);
  ASSERT_EQ(gpu.capture(model.facts(2), model.layers[2].data(), 0), 0);
  EXPECT_TRUE(gpu.read_until([&] { return gpu.tensors() == 1; }));
}

TEST(CudaTrouble, CountsACopyThatFailsAndGoesOn) {
  Model model;
  Gpu gpu;
  gpu.step(0, 1);
  simulation::fail_next(Failure::kCopy);
  ASSERT_EQ(gpu.capture(model.facts(0), model.layers[0].data(), 0), 0);
  ASSERT_EQ(gpu.capture(model.facts(1), model.layers[1].data(), 0), 0);
  ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == 1; }));
  EXPECT_EQ(gpu.all(RING2_KIND_TENSOR)[0].layer, 1);
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_ABORTED), 1u);
}

TEST(CudaTrouble, EndsWithoutWaitingWhenTheGpuIsBroken) {
  Model model;
  Gpu gpu;
  gpu.step(0, 1);
  simulation::fail_next(Failure::kEvent);
  ASSERT_EQ(gpu.capture(model.facts(0), model.layers[0].data(), 0), 0);
  ASSERT_TRUE(gpu.read_until([&] { return gpu.counts().broken == 1; }));
  EXPECT_EQ(gpu.capture(model.facts(1), model.layers[1].data(), 0), -1);
  EXPECT_EQ(begin(gpu, gpu.stream, 1), 0);
  gpu.close();
  gpu.read();
  EXPECT_EQ(gpu.tensors(), 0u);
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_ABORTED), 1u);
}

TEST(CudaTrouble, SaysSoWhenALaunchFails) {
  Model model;
  Gpu gpu;
  simulation::fail_next(Failure::kLaunch);
  EXPECT_EQ(gpu.capture(model.facts(0), model.layers[0].data(), 0), -1);
}

TEST(CudaTrouble, RefusesADeviceThatIsNotThere) {
  const Folder folder;
  ring2_producer *producer = open_producer(folder, "none");
  EXPECT_EQ(ring2_cuda_open(producer, 5, 0), nullptr);
  EXPECT_NE(std::string(ring2_cuda_error()).find("finding the GPU"), std::string::npos);
  ring2_producer_close(producer);
}

TEST(CudaEnd, GivesAllMemoryBack) {
  const long before = simulation::allocations();
  {
    Model model;
    Gpu gpu;
    gpu.step(0, 1);
    ASSERT_EQ(gpu.capture(model.facts(0), model.layers[0].data(), 0), 0);
  }
  EXPECT_EQ(simulation::allocations(), before);
}

TEST(CudaEnd, LetsGraphsBeReplayedAfterwards) {
  Model model;
  Gpu gpu;
  const auto graph = model.graph(gpu);
  step_around(gpu, graph, 0);
  const long open = simulation::allocations();
  gpu.close();
  // What the graph's nodes point at stays; the ring itself does not.
  EXPECT_EQ(simulation::allocations(), open - 2);
  simulation::replay(graph, gpu.stream);
  simulation::synchronize(gpu.stream);
  gpu.read();
  EXPECT_EQ(gpu.tensors(), kLayers);
}

}  // namespace
