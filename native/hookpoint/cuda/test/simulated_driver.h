// A driver for tests: GPU memory is the heap, a stream is a queue with a thread, a kernel is its own source
// over C++ threads, a graph is a list of launches. Only what the tests need beside the driver's table.
#ifndef RING2_CUDA_SIMULATED_DRIVER_H
#define RING2_CUDA_SIMULATED_DRIVER_H

#include <memory>

#include "driver.h"

namespace ring2_simulation {

struct Graph;

constexpr int kDevices = 3;

CUstream create_stream(int device = 0);
void destroy_stream(CUstream stream);
void synchronize(CUstream stream);
void begin_capture(CUstream stream);
std::shared_ptr<Graph> end_capture(CUstream stream);
void replay(const std::shared_ptr<Graph> &graph, CUstream stream);

// Holds back everything in the stream until `go` is called; nothing in a simulation is late by itself.
void hold(CUstream stream);
void go(CUstream stream);
// While set, no event is over: the segment's side stands still.
void stall(bool stalled);
// Writes bytes behind what the stream does now, as a model's kernel would.
void write_behind(CUstream stream, void *to, const void *from, size_t bytes);

// The next call of this kind fails with an error.
enum class Failure { kNone, kRegister, kCopy, kEvent, kLaunch };
void fail_next(Failure failure);

bool is_balanced();  // this thread has popped every context that it pushed
int retained(int device);
size_t loaded_modules();
size_t registrations();  // of memory as pinned
long allocations();  // of GPU and pinned memory that are not freed

}  // namespace ring2_simulation

#endif
