// What several GPUs of one process share, and steps that a slow copier has to announce again.
#include "cuda_helpers.h"

#include <gtest/gtest.h>

using namespace ring2_cuda_test;
namespace simulation = ring2_simulation;

namespace {

constexpr uint32_t kHook = RING2_HOOK_RESID_PRE;
const std::string kEnd = "{\"key\":1}";

// A second GPU beside the helpers' one, with a way into the same segment.
struct Second {
  explicit Second(const Gpu &first) : stream(simulation::create_stream(1)) {
    cuda = ring2_cuda_open(first.producer, 1, 1 << 20);
    EXPECT_NE(cuda, nullptr) << ring2_cuda_error();
  }
  ~Second() {
    close();
    simulation::destroy_stream(stream);
  }
  void close() {
    ring2_cuda_close(cuda);
    cuda = nullptr;
  }

  CUstream stream;
  ring2_cuda *cuda = nullptr;
};

int capture(ring2_cuda *cuda, CUstream stream, int32_t layer, int64_t step, const uint32_t *value) {
  const ring2_tensor facts = tensor(kHook, layer, step, {1, 1}, RING2_DTYPE_INT32);
  return ring2_cuda_capture(cuda, stream, &facts, value, step);
}

TEST(CudaSteps, AreAnnouncedAgainBeforeTensorsThatComeLate) {
  Gpu gpu(1 << 20, {4 << 20, 8192});
  constexpr int64_t kCaptured = 200, kSteps = 600;
  std::vector<uint32_t> values(kCaptured);
  simulation::hold(gpu.stream);
  for (int64_t step = 0; step < kSteps; ++step) {
    gpu.step(step, 1);
    if (step >= kCaptured) continue;
    values[static_cast<size_t>(step)] = static_cast<uint32_t>(step) + 1;
    ASSERT_EQ(capture(gpu.cuda, gpu.stream, 0, step, &values[static_cast<size_t>(step)]), 0);
  }
  gpu.read();  // the exporter has forgotten all of the captured steps
  EXPECT_EQ(gpu.count(RING2_KIND_STEP), size_t{kSteps});
  simulation::go(gpu.stream);
  ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == size_t{kCaptured}; }));
  for (const Seen &one : gpu.all(RING2_KIND_TENSOR)) {
    EXPECT_TRUE(one.attributed) << one.step;
    EXPECT_EQ(memcmp(one.bytes.data(), &values[static_cast<size_t>(one.step)], 4), 0);
  }
  // Each once: those that are announced again are the newest.
  EXPECT_EQ(gpu.count(RING2_KIND_STEP), size_t{kSteps + kCaptured});
}

TEST(CudaSteps, ThatFindNoRoomAgainCostTheirTensorsAndAreCounted) {
  Gpu gpu(1 << 20, {64 << 10, 1024});
  const uint32_t value = 5;
  simulation::hold(gpu.stream);
  gpu.step(0, 1);
  ASSERT_EQ(capture(gpu.cuda, gpu.stream, 0, 0, &value), 0);
  for (int64_t step = 1; step < 400; ++step) gpu.step(step, 1);
  gpu.read();
  // Nobody drains from now on.
  const ring2_tensor facts = tensor(kHook, 0, 399, {1, 16});
  const std::vector<uint8_t> filling(64);
  while (ring2_write_tensor(gpu.producer, &facts, filling.data()) == RING2_OK) {
  }
  simulation::go(gpu.stream);
  gpu.close();
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_STEP_LOST), 1u);
}

TEST(CudaSteps, OfAProducerWithoutAGpuAreLeftAlone) {
  const Folder folder;
  ring2_producer *producer = open_producer(folder, "none");
  const ring2_step_header header = {};
  ring2_cuda_step_written(producer, &header, nullptr);
  EXPECT_EQ(ring2_producer_header(producer)->meta_head, 0u);
  ring2_producer_close(producer);
}

TEST(CudaGpus, CaptureIntoOneSegmentAndCloseInAnyOrder) {
  for (const bool first_closes_first : {true, false}) {
    Gpu gpu;
    const size_t modules = simulation::loaded_modules();
    Second second(gpu);
    EXPECT_EQ(simulation::registrations(), 1u);
    const uint32_t values[] = {11, 12, 13};
    gpu.step(0, 1);
    gpu.step(1, 1);
    EXPECT_EQ(capture(gpu.cuda, gpu.stream, 0, 0, &values[0]), 0);
    EXPECT_EQ(capture(second.cuda, second.stream, 1, 0, &values[1]), 0);
    // A stream of another GPU is refused by the driver, and no context is left behind.
    EXPECT_EQ(capture(second.cuda, gpu.stream, 2, 0, &values[2]), -1);
    EXPECT_TRUE(simulation::is_balanced());
    ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == 2; }));

    if (first_closes_first) {
      gpu.close();
    } else {
      second.close();
    }
    EXPECT_EQ(simulation::registrations(), 1u);
    EXPECT_EQ(simulation::loaded_modules(), modules);
    ring2_cuda *left = first_closes_first ? second.cuda : gpu.cuda;
    EXPECT_EQ(capture(left, first_closes_first ? second.stream : gpu.stream, 2, 1, &values[2]), 0);
    ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == 3; }));
    const std::vector<Seen> seen = gpu.all(RING2_KIND_TENSOR);
    EXPECT_EQ(memcmp(seen[2].bytes.data(), &values[2], 4), 0);

    gpu.close();
    second.close();
    EXPECT_EQ(simulation::registrations(), 0u);
    EXPECT_EQ(simulation::retained(0), 0);
    EXPECT_EQ(simulation::retained(1), 0);
    EXPECT_TRUE(simulation::is_balanced());
  }
}

TEST(CudaGpus, LeaveTheSegmentAsItWasWhenOneCannotBeOpened) {
  Gpu gpu;
  EXPECT_EQ(ring2_cuda_open(gpu.producer, 7, 0), nullptr);
  EXPECT_EQ(simulation::registrations(), 1u);
  EXPECT_TRUE(simulation::is_balanced());
  gpu.close();
  EXPECT_EQ(simulation::registrations(), 0u);
}

TEST(CudaGpus, HoldARecordBackUntilTheLastOfThemIsThere) {
  for (const int late : {0, 1}) {
    Gpu gpu;
    Second second(gpu);
    const CUstream streams[] = {gpu.stream, second.stream};
    ring2_cuda *ways[] = {gpu.cuda, second.cuda};
    const uint32_t value = 3;
    gpu.step(0, 1);
    simulation::hold(streams[late]);
    for (int device = 0; device < 2; ++device) {
      ASSERT_EQ(capture(ways[device], streams[device], device, 0, &value), 0);
    }
    ASSERT_EQ(ring2_cuda_write_behind(ways, reinterpret_cast<void *const *>(streams), 2,
                                      RING2_KIND_REQUEST_END, kEnd.data(), kEnd.size()),
              1);
    simulation::synchronize(streams[1 - late]);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (gpu.tensors() < 1 && std::chrono::steady_clock::now() < deadline) gpu.read();
    gpu.read();
    EXPECT_EQ(gpu.count(RING2_KIND_REQUEST_END), 0u);
    simulation::go(streams[late]);
    ASSERT_TRUE(gpu.read_until([&] { return gpu.count(RING2_KIND_REQUEST_END) == 1; }));
    EXPECT_EQ(gpu.tensors(), 2u);
    EXPECT_EQ(gpu.seen.back().kind, uint32_t{RING2_KIND_REQUEST_END});
  }
}

TEST(CudaGpus, GiveARecordBackWhenNoneOfThemCanWaitForIt) {
  Gpu gpu;
  simulation::fail_next(simulation::Failure::kLaunch);
  void *const streams[] = {gpu.stream};
  EXPECT_EQ(ring2_cuda_write_behind(&gpu.cuda, streams, 1, RING2_KIND_REQUEST_END, kEnd.data(), kEnd.size()),
            0);
  EXPECT_EQ(ring2_cuda_write_behind(nullptr, nullptr, 0, RING2_KIND_REQUEST_END, kEnd.data(), kEnd.size()),
            0);
}

}  // namespace
