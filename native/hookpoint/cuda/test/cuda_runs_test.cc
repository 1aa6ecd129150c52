// Steps that hold some runs of axis 0 alone: what comes off a GPU is what the same call gives on the CPU.
#include "cuda_helpers.h"

#include <gtest/gtest.h>

using namespace ring2_cuda_test;
namespace simulation = ring2_simulation;

namespace {

constexpr uint32_t kHook = RING2_HOOK_Q;

struct Case {
  std::vector<int64_t> dims, strides;
  std::vector<ring2_run> runs;
};

const Case kCases[] = {
    {{8, 6}, {6, 1}, {{0, 3}}},
    {{8, 6}, {6, 1}, {{1, 2}, {4, 1}, {7, 1}}},
    {{8, 6}, {1, 8}, {{0, 1}, {2, 6}}},
    {{8, 3, 64}, {192, 64, 1}, {{3, 2}, {6, 2}}},
    {{8, 3, 64}, {64, 512, 1}, {{0, 2}, {5, 3}}},
    {{8, 3, 64}, {200, 64, 1}, {{7, 1}}},
    {{8, 5, 4096}, {20480, 4096, 1}, {{1, 1}, {3, 4}}},
    {{8}, {1}, {{0, 1}, {2, 1}, {4, 1}, {6, 1}}},
    {{1, 40}, {40, 1}, {{0, 1}}},
};

ring2_tensor facts_of(const Case &one, int64_t step) {
  ring2_tensor facts = tensor(kHook, 0, step, one.dims, RING2_DTYPE_BFLOAT16);
  for (size_t axis = 0; axis < one.strides.size(); ++axis) facts.strides[axis] = one.strides[axis];
  return facts;
}

uint32_t rows_of(const Case &one) {
  uint32_t rows = 0;
  for (const ring2_run &run : one.runs) rows += run.count;
  return rows;
}

// What the CPU writes for the same call is taken from a segment of its own.
std::vector<uint8_t> on_the_cpu(const Case &one, const uint8_t *data) {
  Gpu cpu;
  cpu.step(0, rows_of(one));
  const ring2_tensor facts = facts_of(one, 0);
  const auto count = static_cast<uint32_t>(one.runs.size());
  EXPECT_EQ(ring2_write_tensor_runs(cpu.producer, &facts, data, one.runs.data(), count), RING2_OK);
  cpu.read();
  return cpu.seen.back().bytes;
}

int begin(Gpu &gpu, int64_t step, const Case &one) {
  const uint64_t *wanted = &ring2_producer_header(gpu.producer)->wanted[0][0];
  return ring2_cuda_begin_step(gpu.cuda, gpu.stream, step, wanted, one.runs.data(),
                               static_cast<uint32_t>(one.runs.size()), one.dims[0]);
}

TEST(CudaRuns, AreCopiedAsOnTheCpu) {
  const std::vector<uint8_t> data = noise(1 << 20, 3);
  Gpu gpu;
  int64_t step = 0;
  for (const Case &one : kCases) {
    gpu.step(step, rows_of(one));
    const ring2_tensor facts = facts_of(one, step);
    ASSERT_EQ(ring2_cuda_capture_runs(gpu.cuda, gpu.stream, &facts, data.data(), step, one.runs.data(),
                                      static_cast<uint32_t>(one.runs.size()), one.dims[0]),
              0);
    const size_t before = gpu.tensors();
    ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() > before; }));
    EXPECT_EQ(gpu.seen.back().bytes, on_the_cpu(one, data.data())) << "case " << step;
    ++step;
  }
}

TEST(CudaRuns, OfTheStepAreTakenFromAGraph) {
  const std::vector<uint8_t> data = noise(1 << 20, 4);
  int number = 0;
  for (const Case &one : kCases) {
    Gpu gpu;
    simulation::begin_capture(gpu.stream);
    ASSERT_EQ(gpu.capture(facts_of(one, -1), data.data(), -1), 0);
    const auto graph = simulation::end_capture(gpu.stream);
    // First a step of some rows, then one of all.
    const Case all = {one.dims, one.strides, {{0, static_cast<uint32_t>(one.dims[0])}}};
    gpu.step(0, rows_of(one));
    gpu.step(1, rows_of(all));
    ASSERT_EQ(begin(gpu, 0, one), 1);
    simulation::replay(graph, gpu.stream);
    ring2_cuda_end_step(gpu.cuda, gpu.stream);
    ASSERT_EQ(begin(gpu, 1, {one.dims, one.strides, {}}), 1);
    simulation::replay(graph, gpu.stream);
    ring2_cuda_end_step(gpu.cuda, gpu.stream);
    ASSERT_TRUE(gpu.read_until([&] { return gpu.tensors() == 2; }));
    const std::vector<Seen> seen = gpu.all(RING2_KIND_TENSOR);
    EXPECT_EQ(seen[0].bytes, on_the_cpu(one, data.data())) << "case " << number;
    EXPECT_EQ(seen[1].bytes, on_the_cpu(all, data.data())) << "case " << number;
    ++number;
  }
}

TEST(CudaRuns, OfATensorOfAnotherLengthAreRefusedAndCounted) {
  const std::vector<uint8_t> data = noise(4096, 5);
  Gpu gpu;
  const ring2_tensor facts = facts_of(kCases[0], 0);
  const ring2_run run = {0, 1};
  gpu.step(0, 1);
  EXPECT_EQ(ring2_cuda_capture_runs(gpu.cuda, gpu.stream, &facts, data.data(), 0, &run, 1, 7), -1);
  const ring2_run beyond = {6, 3};
  EXPECT_EQ(ring2_cuda_capture_runs(gpu.cuda, gpu.stream, &facts, data.data(), 0, &beyond, 1, 8), -1);
  simulation::begin_capture(gpu.stream);
  ASSERT_EQ(gpu.capture(facts, data.data(), -1), 0);
  const auto graph = simulation::end_capture(gpu.stream);
  ASSERT_EQ(begin(gpu, 0, kCases[8]), 1);  // of a batch of one
  simulation::replay(graph, gpu.stream);
  ring2_cuda_end_step(gpu.cuda, gpu.stream);
  gpu.close();
  gpu.read();
  EXPECT_EQ(gpu.tensors(), 0u);
  EXPECT_EQ(lost(gpu.consumer, RING2_LOSS_UNSUPPORTED), 1u);
}

}  // namespace
