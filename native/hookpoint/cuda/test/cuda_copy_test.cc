// What arrives in the segment: bytes, shapes, order, losses. On a simulated GPU (simulated_driver.h).
#include "cuda_helpers.h"

#include <gtest/gtest.h>

#include "gather.h"

using namespace ring2_cuda_test;
namespace simulation = ring2_simulation;

namespace {

constexpr uint32_t kHook = RING2_HOOK_RESID_PRE;

// The elements that the strides name, row-major: written apart from the gather that is tested.
std::vector<uint8_t> reference(const ring2_tensor &facts, const uint8_t *data) {
  const uint32_t element = ring2_dtype_bytes(facts.dtype);
  std::vector<uint8_t> bytes;
  std::vector<int64_t> index(facts.ndim, 0);
  while (true) {
    int64_t offset = 0;
    for (uint32_t axis = 0; axis < facts.ndim; ++axis) offset += index[axis] * facts.strides[axis];
    bytes.insert(bytes.end(), data + offset * element, data + (offset + 1) * element);
    int64_t axis = facts.ndim - 1;
    while (axis >= 0 && ++index[axis] == facts.dims[axis]) index[axis--] = 0;
    if (axis < 0) return bytes;
  }
}

TEST(CudaCopy, ArrivesBitForBitFromOneBlockAndFromMany) {
  Gpu gpu;
  for (const int64_t width : {1, 3, 16, 1000, 40000, 65536}) {
    const int64_t step = static_cast<int64_t>(gpu.seen.size());
    const ring2_tensor facts = tensor(kHook, 3, step, {2, width});
    const std::vector<uint8_t> data = noise(static_cast<size_t>(width) * 8, static_cast<uint32_t>(width));
    gpu.step(step, 2);
    ASSERT_EQ(gpu.capture(facts, data.data(), step), 0);
    const size_t before = gpu.tensors();
    ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() > before; }));
    EXPECT_EQ(gpu.seen.back().bytes, data) << width;
    EXPECT_EQ(gpu.seen.back().layer, 3);
    EXPECT_EQ(gpu.seen.back().step, step);
  }
  EXPECT_EQ(gpu.counts().copied_records, 6u);
  EXPECT_EQ(gpu.counts().pinned, 1u);
}

TEST(CudaCopy, GathersEveryLayoutOfEveryDtype) {
  struct Layout {
    std::vector<int64_t> dims, strides;
    int64_t offset;  // in elements: an unaligned beginning
  };
  const Layout layouts[] = {
      {{4, 6, 8}, {48, 8, 1}, 0},    {{4, 6, 8}, {48, 8, 1}, 1},  {{4, 6, 8}, {8, 32, 1}, 0},
      {{4, 6, 8}, {1, 4, 24}, 0},    {{4, 6, 8}, {0, 8, 1}, 0},   {{4, 6, 8}, {96, 16, 1}, 3},
      {{4, 6, 8}, {96, 16, 2}, 0},   {{4, 1, 1}, {7, 5, 3}, 0},   {{4, 2, 700}, {1400, 700, 1}, 0},
      {{4, 3, 1000}, {1, 4, 12}, 0},
  };
  Gpu gpu;
  const std::vector<uint8_t> memory = noise(1 << 20, 7);
  int64_t step = 0;
  for (uint32_t dtype = RING2_DTYPE_FLOAT32; dtype <= RING2_DTYPE_BOOL; ++dtype) {
    for (const Layout &layout : layouts) {
      ring2_tensor facts = tensor(RING2_HOOK_Q, 0, step, layout.dims, dtype);
      for (size_t axis = 0; axis < layout.strides.size(); ++axis) facts.strides[axis] = layout.strides[axis];
      const uint8_t *data = memory.data() + layout.offset * ring2_dtype_bytes(dtype);
      gpu.step(step, 4);
      ASSERT_EQ(gpu.capture(facts, data, step), 0);
      const size_t before = gpu.tensors();
      ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() > before; }));
      EXPECT_EQ(gpu.seen.back().bytes, reference(facts, data)) << "dtype " << dtype << " step " << step;
      ++step;
    }
  }
}

TEST(CudaCopy, ReadsSixteenBytesAtATimeWhereMemoryAllows) {
  alignas(16) static uint8_t memory[4096];
  ring2_cuda_shared::CudaCall call = {};
  const ring2_tensor dense = tensor(kHook, 0, 0, {4, 64}, RING2_DTYPE_BFLOAT16);
  ASSERT_TRUE(plan_gather(dense, memory, false, &call));
  EXPECT_EQ(call.width, 16u);
  EXPECT_EQ(call.axes, 1u);
  ASSERT_TRUE(plan_gather(dense, memory + 2, false, &call));
  EXPECT_EQ(call.width, 2u);
  ring2_tensor slice = dense;
  slice.strides[0] = 72;
  ASSERT_TRUE(plan_gather(slice, memory, false, &call));
  EXPECT_EQ(call.width, 16u);
  EXPECT_EQ(call.axes, 2u);
  const ring2_tensor odd = tensor(kHook, 0, 0, {4, 6}, RING2_DTYPE_BFLOAT16);
  ASSERT_TRUE(plan_gather(odd, memory, true, &call));
  EXPECT_EQ(call.width, 4u);  // rows of 12 bytes may be cut anywhere
}

TEST(CudaCopy, RefusesWhatItCannotDescribe) {
  ring2_cuda_shared::CudaCall call = {};
  ring2_tensor facts = tensor(kHook, 0, 0, {4, 4});
  facts.strides[0] = -4;
  EXPECT_FALSE(plan_gather(facts, &call, false, &call));
  facts = tensor(kHook, 0, 0, {4, 4}, 99);
  EXPECT_FALSE(plan_gather(facts, &call, false, &call));
  facts = tensor(kHook, 0, 0, {1, 1, 1});
  for (int64_t &length : {std::ref(facts.dims[0]), std::ref(facts.dims[1]), std::ref(facts.dims[2])}) {
    length = INT32_MAX;
  }
  EXPECT_FALSE(plan_gather(facts, &call, false, &call));
}

TEST(CudaCopy, LeavesOutTheRowsThatTheGpuSaysAreEmpty) {
  Gpu gpu;
  const std::vector<uint8_t> data = noise(8 * 24, 5);
  const ring2_tensor facts = tensor(kHook, 0, 0, {8, 6});
  int64_t step = 0;
  for (const int32_t rows : {0, 3, 8, 99}) {
    const int32_t kept = std::min(rows, 8);
    gpu.step(step, static_cast<uint32_t>(std::max(kept, 1)));
    ASSERT_EQ(ring2_cuda_capture_rows(gpu.cuda, gpu.stream, &facts, data.data(), step, &rows), 0);
    simulation::synchronize(gpu.stream);
    if (kept > 0) {
      const size_t before = gpu.tensors();
      ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() > before; }));
      EXPECT_EQ(gpu.seen.back().bytes, std::vector<uint8_t>(data.begin(), data.begin() + kept * 24));
    }
    ++step;
  }
}

TEST(CudaCopy, LosesNothingOverManyLapsWhenTheHostKeepsUp) {
  Gpu gpu(64 << 10);
  std::vector<std::vector<uint8_t>> sent;
  for (int64_t step = 0; step < 300; ++step) {
    const int64_t width = 1 + step * 37 % 3000;
    sent.push_back(noise(static_cast<size_t>(width) * 4, static_cast<uint32_t>(step)));
    gpu.step(step, 1);
    ASSERT_EQ(gpu.capture(tensor(kHook, 0, step, {1, width}), sent.back().data(), step), 0);
    if (step % 3 == 2) {
      ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == sent.size(); }));
    }
  }
  const std::vector<Seen> seen = gpu.all(RING2_KIND_TENSOR);
  ASSERT_EQ(seen.size(), sent.size());
  for (size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(seen[i].step, static_cast<int64_t>(i));
    EXPECT_EQ(seen[i].bytes, sent[i]) << i;
  }
}

TEST(CudaCopy, DropsAndCountsWhatDoesNotFitAndDamagesNothing) {
  Gpu gpu(64 << 10);
  std::vector<std::vector<uint8_t>> sent;
  simulation::stall(true);
  for (int64_t step = 0; step < 40; ++step) {
    sent.push_back(noise(9000, static_cast<uint32_t>(step)));
    gpu.step(step, 1);
    ASSERT_EQ(gpu.capture(tensor(kHook, 0, step, {1, 2250}), sent.back().data(), step), 0);
  }
  simulation::synchronize(gpu.stream);
  simulation::stall(false);
  gpu.close();
  gpu.read();
  const std::vector<Seen> seen = gpu.all(RING2_KIND_TENSOR);
  EXPECT_GE(seen.size(), 6u);
  EXPECT_LT(seen.size(), 40u);
  for (const Seen &one : seen) EXPECT_EQ(one.bytes, sent[static_cast<size_t>(one.step)]);
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_PAYLOAD_FULL), 40 - seen.size());
}

TEST(CudaCopy, CountsWhatIsLargerThanTheRing) {
  Gpu gpu(64 << 10);
  const std::vector<uint8_t> data = noise(80000, 1);
  gpu.step(0, 1);
  ASSERT_EQ(gpu.capture(tensor(kHook, 0, 0, {1, 20000}), data.data(), 0), 0);
  ASSERT_EQ(gpu.capture(tensor(kHook, 1, 0, {1, 16384}), data.data(), 0), 0);
  ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == 1; }));
  EXPECT_EQ(gpu.all(RING2_KIND_TENSOR)[0].bytes.size(), 65536u);
  gpu.close();
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_OVERSIZED), 1u);
}

TEST(CudaCopy, CountsEntriesThatTheQueueCannotHold) {
  const uint32_t value = 42;
  Gpu gpu;
  gpu.step(0, 1);
  simulation::stall(true);
  for (int i = 0; i < 256 + 10; ++i) {
    ASSERT_EQ(gpu.capture(tensor(kHook, 0, 0, {1, 1}), &value, 0), 0);
  }
  simulation::synchronize(gpu.stream);
  simulation::stall(false);
  gpu.close();
  gpu.read();
  EXPECT_EQ(gpu.tensors(), 256u);
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_META_FULL), 10u);
}

TEST(CudaCopy, KeepsStreamsApartThatCaptureAtTheSameTime) {
  Gpu gpu(8 << 20, {32 << 20, 4096});
  constexpr int64_t kEach = 12;
  for (int64_t step = 0; step < 3 * kEach; ++step) gpu.step(step, 1);
  std::vector<std::vector<uint8_t>> sent(3 * kEach);
  std::vector<std::thread> threads;
  for (int64_t lane = 0; lane < 3; ++lane) {
    threads.emplace_back([&, lane] {
      const CUstream stream = simulation::create_stream();
      for (int64_t i = 0; i < kEach; ++i) {
        const int64_t step = lane * kEach + i;
        std::vector<uint8_t> &data = sent[static_cast<size_t>(step)];
        data = noise(200000, static_cast<uint32_t>(step));
        const ring2_tensor facts = tensor(kHook, 0, step, {1, 50000});
        EXPECT_EQ(ring2_cuda_capture(gpu.cuda, stream, &facts, data.data(), step), 0);
      }
      simulation::synchronize(stream);
      simulation::destroy_stream(stream);
    });
  }
  for (std::thread &thread : threads) thread.join();
  ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == 3 * kEach; }));
  for (const Seen &one : gpu.all(RING2_KIND_TENSOR)) {
    EXPECT_EQ(one.bytes, sent[static_cast<size_t>(one.step)]);
  }
}

}  // namespace
