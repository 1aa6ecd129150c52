// See simulated_driver.h. Takes the place of src/driver.cc.
#include "simulated_driver.h"

#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "shared.h"
#include "simulation.h"

using namespace ring2_cuda_shared;
using ring2_cuda_driver::Driver;
using Operation = std::function<void()>;

void ring2_capture(CudaCall call);
void ring2_capture_runs(CudaCall call, CudaRuns runs);
void ring2_begin_step(CudaControl *control, int64_t step, CudaWanted wanted, CudaRuns runs);
void ring2_end_step(CudaControl *control);
void ring2_fence(CudaControl *control, uint64_t token);

struct CUfunc_st {
  std::string name;
  CUcontext context;
};
// One per GPU. As of a real driver, kernels and streams of one can be used only while it is current.
struct CUctx_st {
  std::atomic<int> retained{0};
};
struct CUmod_st {
  CUcontext context;
  std::deque<CUfunc_st> functions;
};
struct CUstream_st {
  CUcontext context = nullptr;
  std::mutex lock;
  std::condition_variable changed;
  std::deque<Operation> queue;
  bool busy = false, stop = false, held = false;
  std::vector<Operation> *capture = nullptr;
  std::thread runner;
};
struct CUevent_st {
  std::atomic<uint64_t> recorded{0}, reached{0};
};

namespace ring2_simulation {

struct Graph {
  std::vector<Operation> launches;
};

namespace {

// What is never freed (on purpose: graphs may point at it, or the GPU is broken) stays known here.
std::mutex kept_lock;
auto &kept = *new std::set<void *>;
auto &events = *new std::set<CUevent>;
std::atomic<Failure> failure{Failure::kNone};
std::atomic<bool> stalled{false};
auto &modules = *new std::set<CUmodule>;  // under kept_lock
std::mutex streams_lock;
std::set<CUstream> streams;
CUctx_st contexts[kDevices];
thread_local std::vector<CUcontext> current_contexts;
std::set<void *> registered_memory;  // under kept_lock

CUcontext current_context() { return current_contexts.empty() ? nullptr : current_contexts.back(); }

bool fails(Failure kind) {
  Failure expected = kind;
  return failure.compare_exchange_strong(expected, Failure::kNone);
}

void run(CUstream stream) {
  std::unique_lock<std::mutex> guard(stream->lock);
  while (true) {
    stream->changed.wait(guard, [&] { return stream->stop || (!stream->held && !stream->queue.empty()); });
    if (stream->queue.empty()) return;
    Operation next = std::move(stream->queue.front());
    stream->queue.pop_front();
    stream->busy = true;
    guard.unlock();
    next();
    guard.lock();
    stream->busy = false;
    stream->changed.notify_all();
  }
}

void enqueue(CUstream stream, Operation operation) {
  const std::lock_guard<std::mutex> guard(stream->lock);
  if (stream->capture != nullptr) {
    stream->capture->push_back(std::move(operation));
    return;
  }
  stream->queue.push_back(std::move(operation));
  stream->changed.notify_all();
}

void run_grid(uint32_t blocks, uint32_t threads, const std::function<void()> &kernel) {
  std::vector<std::unique_ptr<Block>> parts;
  for (uint32_t block = 0; block < blocks; ++block) parts.push_back(std::make_unique<Block>(threads));
  std::vector<std::thread> running;
  for (uint32_t block = 0; block < blocks; ++block) {
    for (uint32_t thread = 0; thread < threads; ++thread) {
      running.emplace_back([&, block, thread] {
        current = {thread, block, threads, blocks, parts[block].get()};
        kernel();
      });
    }
  }
  for (std::thread &one : running) one.join();
}

template <typename T>
T argument(void **arguments, int index) {
  T value;
  memcpy(&value, arguments[index], sizeof value);
  return value;
}

// Arguments are read now, as at a real launch; the kernel runs when the stream comes to it.
Operation operation_of(const std::string &name, uint32_t blocks, uint32_t threads, void **arguments) {
  const uint32_t simulated = blocks > 1 || threads < 256 ? (threads < 2 ? 1 : 2) : 1;
  if (name == "ring2_capture") {
    const auto call = argument<CudaCall>(arguments, 0);
    return [=] { run_grid(blocks, simulated, [=] { ring2_capture(call); }); };
  }
  if (name == "ring2_capture_runs") {
    const auto call = argument<CudaCall>(arguments, 0);
    const auto runs = argument<CudaRuns>(arguments, 1);
    return [=] { run_grid(blocks, simulated, [=] { ring2_capture_runs(call, runs); }); };
  }
  auto *control = reinterpret_cast<CudaControl *>(argument<CUdeviceptr>(arguments, 0));
  if (name == "ring2_begin_step") {
    const auto step = argument<int64_t>(arguments, 1);
    const auto wanted = argument<CudaWanted>(arguments, 2);
    const auto runs = argument<CudaRuns>(arguments, 3);
    return [=] { run_grid(1, simulated, [=] { ring2_begin_step(control, step, wanted, runs); }); };
  }
  if (name == "ring2_end_step") {
    return [=] { run_grid(1, simulated, [=] { ring2_end_step(control); }); };
  }
  const auto token = argument<uint64_t>(arguments, 1);
  return [=] { run_grid(1, simulated, [=] { ring2_fence(control, token); }); };
}

CUresult launch(CUfunction function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned,
                unsigned, unsigned, CUstream stream, void **arguments, void **) {
  if (fails(Failure::kLaunch)) return 719;
  if (function->context != current_context()) return 201;
  if (stream->context != current_context()) return 400;
  enqueue(stream, operation_of(function->name, blocks, threads, arguments));
  return 0;
}

CUresult stream_create(CUstream *out, unsigned) {
  *out = new CUstream_st;
  (*out)->context = current_context();
  (*out)->runner = std::thread(run, *out);
  const std::lock_guard<std::mutex> guard(streams_lock);
  streams.insert(*out);
  return 0;
}

CUresult stream_destroy(CUstream stream) {
  {
    const std::lock_guard<std::mutex> guard(streams_lock);
    streams.erase(stream);
  }
  {
    const std::lock_guard<std::mutex> guard(stream->lock);
    stream->stop = true;
    stream->held = false;
    stream->changed.notify_all();
  }
  stream->runner.join();
  delete stream;
  return 0;
}

CUresult stream_synchronize(CUstream stream) {
  std::unique_lock<std::mutex> guard(stream->lock);
  stream->changed.wait(guard, [&] { return stream->queue.empty() && !stream->busy; });
  return 0;
}

CUresult context_synchronize() {
  std::vector<CUstream> all;
  {
    const std::lock_guard<std::mutex> guard(streams_lock);
    all.assign(streams.begin(), streams.end());
  }
  for (const CUstream stream : all) {
    if (stream->context == current_context()) stream_synchronize(stream);
  }
  return 0;
}

CUresult allocate_host(void **out, size_t bytes, unsigned) {
  *out = aligned_alloc(256, (bytes + 255) / 256 * 256);
  const std::lock_guard<std::mutex> guard(kept_lock);
  kept.insert(*out);
  return *out == nullptr ? 2 : 0;
}

CUresult release_host(void *memory) {
  const std::lock_guard<std::mutex> guard(kept_lock);
  kept.erase(memory);
  free(memory);
  return 0;
}

CUresult copy_async(void *to, const void *from, size_t bytes, CUstream stream) {
  enqueue(stream, [=] { memcpy(to, from, bytes); });
  return 0;
}

Driver make_driver() {
  Driver d = {};
  d.init = [](unsigned) { return 0; };
  d.error_name = [](CUresult, const char **name) { *name = "CUDA_ERROR_SIMULATED"; return 0; };
  d.device_get = [](CUdevice *device, int ordinal) {
    *device = ordinal;
    return ordinal < kDevices ? 0 : 101;
  };
  d.device_attribute = [](int *value, CUdevice_attribute, CUdevice) { *value = 2; return 0; };
  d.primary_retain = [](CUcontext *context, CUdevice device) {
    *context = &contexts[device];
    ++contexts[device].retained;
    return 0;
  };
  d.primary_release = [](CUdevice device) { return --contexts[device].retained < 0 ? 201 : 0; };
  d.context_current = [](CUcontext *context) { *context = current_context(); return 0; };
  d.context_push = [](CUcontext context) { current_contexts.push_back(context); return 0; };
  d.context_pop = [](CUcontext *context) {
    if (current_contexts.empty()) return 201;
    *context = current_contexts.back();
    current_contexts.pop_back();
    return 0;
  };
  d.context_synchronize = context_synchronize;
  d.module_load = [](CUmodule *module, const void *image) {
    *module = new CUmod_st{current_context(), {}};
    const std::lock_guard<std::mutex> guard(kept_lock);
    modules.insert(*module);
    return strstr(static_cast<const char *>(image), ".entry ring2_capture") == nullptr ? 200 : 0;
  };
  d.module_unload = [](CUmodule module) {
    const std::lock_guard<std::mutex> guard(kept_lock);
    if (modules.erase(module) == 0) return 400;
    delete module;
    return 0;
  };
  d.module_function = [](CUfunction *function, CUmodule module, const char *name) {
    static const std::set<std::string> known = {"ring2_capture", "ring2_capture_runs",
                                                "ring2_begin_step", "ring2_end_step", "ring2_fence"};
    if (known.count(name) == 0) return 500;
    *function = &module->functions.emplace_back(CUfunc_st{name, module->context});
    return 0;
  };
  d.launch = launch;
  d.allocate = [](CUdeviceptr *out, size_t bytes) {
    void *memory = nullptr;
    const CUresult result = allocate_host(&memory, bytes, 0);
    *out = reinterpret_cast<CUdeviceptr>(memory);
    return result;
  };
  d.release = [](CUdeviceptr memory) { return release_host(reinterpret_cast<void *>(memory)); };
  d.fill_async = [](CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    enqueue(stream, [=] { memset(reinterpret_cast<void *>(to), value, bytes); });
    return 0;
  };
  d.host_allocate = allocate_host;
  d.host_release = release_host;
  d.host_device_pointer = [](CUdeviceptr *out, void *memory, unsigned) {
    *out = reinterpret_cast<CUdeviceptr>(memory);
    return 0;
  };
  d.host_register = [](void *memory, size_t, unsigned) {
    const std::lock_guard<std::mutex> guard(kept_lock);
    if (fails(Failure::kRegister)) return 1;
    return registered_memory.insert(memory).second ? 0 : 712;
  };
  d.host_unregister = [](void *memory) {
    const std::lock_guard<std::mutex> guard(kept_lock);
    return registered_memory.erase(memory) == 1 ? 0 : 713;
  };
  d.stream_create = stream_create;
  d.stream_destroy = stream_destroy;
  d.stream_synchronize = stream_synchronize;
  d.stream_is_capturing = [](CUstream stream, CUstreamCaptureStatus *status) {
    const std::lock_guard<std::mutex> guard(stream->lock);
    *status = stream->capture == nullptr ? 0 : 1;
    return 0;
  };
  d.exchange_capture_mode = [](CUstreamCaptureMode *mode) {
    static thread_local CUstreamCaptureMode now = 0;
    std::swap(now, *mode);
    return 0;
  };
  d.event_create = [](CUevent *event, unsigned) {
    *event = new CUevent_st;
    const std::lock_guard<std::mutex> guard(kept_lock);
    events.insert(*event);
    return 0;
  };
  d.event_record = [](CUevent event, CUstream stream) {
    if (fails(Failure::kEvent)) return 719;
    const uint64_t number = ++event->recorded;
    enqueue(stream, [=] { event->reached = number; });
    return 0;
  };
  d.event_query = [](CUevent event) {
    return !stalled && event->reached == event->recorded ? 0 : 600;
  };
  d.event_destroy = [](CUevent event) {
    const std::lock_guard<std::mutex> guard(kept_lock);
    events.erase(event);
    delete event;
    return 0;
  };
  d.copy_to_host_async = [](void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    if (fails(Failure::kCopy)) return 719;
    return copy_async(to, reinterpret_cast<const void *>(from), bytes, stream);
  };
  // As with pageable memory on a real driver: the source is read before the call returns.
  d.copy_to_device_async = [](CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    const std::string copy(static_cast<const char *>(from), bytes);
    enqueue(stream, [=] { memcpy(reinterpret_cast<void *>(to), copy.data(), copy.size()); });
    return 0;
  };
  return d;
}

}  // namespace

CUstream create_stream(int device) {
  current_contexts.push_back(&contexts[device]);
  CUstream stream = nullptr;
  stream_create(&stream, 0);
  current_contexts.pop_back();
  return stream;
}
void destroy_stream(CUstream stream) { stream_destroy(stream); }
void synchronize(CUstream stream) { stream_synchronize(stream); }

void begin_capture(CUstream stream) {
  const std::lock_guard<std::mutex> guard(stream->lock);
  stream->capture = new std::vector<Operation>;
}

std::shared_ptr<Graph> end_capture(CUstream stream) {
  const std::lock_guard<std::mutex> guard(stream->lock);
  auto graph = std::make_shared<Graph>();
  graph->launches = std::move(*stream->capture);
  delete stream->capture;
  stream->capture = nullptr;
  return graph;
}

void replay(const std::shared_ptr<Graph> &graph, CUstream stream) {
  enqueue(stream, [graph] {
    for (const Operation &one : graph->launches) one();
  });
}

void hold(CUstream stream) {
  const std::lock_guard<std::mutex> guard(stream->lock);
  stream->held = true;
}

void go(CUstream stream) {
  const std::lock_guard<std::mutex> guard(stream->lock);
  stream->held = false;
  stream->changed.notify_all();
}

void write_behind(CUstream stream, void *to, const void *from, size_t bytes) {
  const std::string copy(static_cast<const char *>(from), bytes);
  enqueue(stream, [=] { memcpy(to, copy.data(), copy.size()); });
}

void stall(bool now) { stalled = now; }
void fail_next(Failure kind) { failure = kind; }
bool is_balanced() {
  return current_contexts.empty();
}
int retained(int device) { return contexts[device].retained; }
size_t loaded_modules() {
  const std::lock_guard<std::mutex> guard(kept_lock);
  return modules.size();
}
size_t registrations() {
  const std::lock_guard<std::mutex> guard(kept_lock);
  return registered_memory.size();
}
long allocations() {
  const std::lock_guard<std::mutex> guard(kept_lock);
  return static_cast<long>(kept.size());
}

}  // namespace ring2_simulation

namespace ring2_cuda_driver {

const Driver *load_driver(const char **reason) {
  static const Driver driver = ring2_simulation::make_driver();
  *reason = "";
  return &driver;
}

}  // namespace ring2_cuda_driver
