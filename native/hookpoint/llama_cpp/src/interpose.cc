// The functions of llama.cpp that calls go through on their way: each does what the real one does, and
// tells the capture beside it. The real one is called whatever happens to the capture.
#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>

#include "capture.h"
#include "channel.h"
#include "engine.h"
#include "options.h"
#include "rows.h"

#define RING2_INTERPOSED extern "C" __attribute__((visibility("default"), noinline))

using namespace ring2_llama;

namespace {

using SetCallback = void (*)(void *scheduler, EvalCallback callback, void *user);
using Compute = int (*)(void *scheduler, void *graph);
using Decode = int32_t (*)(void *context, Batch batch);

std::mutex chains_lock;
std::map<void *, std::unique_ptr<Chain>> &chains() {
  static auto *all = new std::map<void *, std::unique_ptr<Chain>>;
  return *all;
}

// What this thread's llama_decode is of, and how many of them are running, captured or not.
thread_local Engine *current = nullptr;
thread_local int decodes = 0;

// `from`: an address in libllama, which is linked with it. The first decode of a process may come before
// llama.cpp itself has called it.
SetCallback real_set_callback(const void *from) {
  static const auto real =
      reinterpret_cast<SetCallback>(real_function("ggml_backend_sched_set_eval_callback", from));
  return real;
}

Chain &chain_of(void *scheduler) {
  const std::lock_guard guard(chains_lock);
  std::unique_ptr<Chain> &chain = chains()[scheduler];
  if (chain == nullptr) chain = std::make_unique<Chain>(Chain{nullptr, nullptr, nullptr});
  return *chain;
}

const Facts *usable_facts(const void *decode) {
  const SetCallback real = real_set_callback(decode);
  return real == nullptr ? nullptr : facts(reinterpret_cast<const void *>(real), decode);
}

// llama.cpp warms up on tokens of no sequence, in the shape that llama_batch_get_one gives. Such a batch is
// of somebody only when that one has said so.
bool is_warm_up(const Batch &batch) {
  return batch.pos == nullptr && batch.seq_id == nullptr && !is_registered(0);
}

// The engine of a decode that is to be captured; NULL for every other one.
Engine *begin_decode(const void *context, const void *decode, const Batch &batch) {
  try {
    const Facts *known = usable_facts(decode);
    if (known == nullptr || is_warm_up(batch)) return nullptr;
    Engine *engine = engine_of(context, known);
    if (engine == nullptr || !engine->active) return nullptr;
    start_housekeeping();
    const std::lock_guard guard(engine->lock);
    if (!read_batch(*engine, batch)) {
      ring2_count_loss(engine->producer, RING2_LOSS_UNSUPPORTED, 1, 0);
      return nullptr;
    }
    engine->decoding = true;
    return engine;
  } catch (const std::exception &error) {
    say("llama.cpp: %s", error.what());
    return nullptr;
  }
}

void end_decode(Engine *engine) {
  const std::lock_guard guard(engine->lock);
  engine->decoding = false;
}

// Restores what a decode has set, also when a user's callback throws through it.
struct Decoding {
  Engine *outer;
  Engine *engine;

  explicit Decoding(Engine *begun) : outer(current), engine(begun) {
    current = begun;
    ++decodes;
  }
  ~Decoding() {
    --decodes;
    current = outer;
    if (engine != nullptr) end_decode(engine);
  }
};

// Gives the scheduler the user's own callback back, also when that one throws.
struct Watching {
  SetCallback set;
  void *scheduler;
  const Chain *chain;

  ~Watching() { set(scheduler, chain->user, chain->user_data); }
};

// Nothing says whose the rows of such a graph are.
void say_not_decoded() {
  static std::once_flag once;
  std::call_once(once, [] {
    say("llama.cpp: a graph runs outside llama_decode (an encoder, or a newer way to run a model): it is "
        "not captured, the engine serves on");
  });
}

__attribute__((destructor)) void at_exit() { close_all_engines(); }

}  // namespace

RING2_INTERPOSED void ggml_backend_sched_set_eval_callback(void *scheduler, EvalCallback callback,
                                                           void *user) {
  const SetCallback real = real_set_callback(__builtin_return_address(0));
  if (real == nullptr) return;
  Chain &chain = chain_of(scheduler);
  chain.user = callback;
  chain.user_data = user;
  // llama.cpp calls this when it builds a graph: what was planned of the last one is over.
  if (current != nullptr) current->plan.valid = false;
  real(scheduler, callback, user);
}

RING2_INTERPOSED int ggml_backend_sched_graph_compute_async(void *scheduler, void *graph) {
  static const auto real = reinterpret_cast<Compute>(
      real_function("ggml_backend_sched_graph_compute_async", __builtin_return_address(0)));
  if (real == nullptr) return -1;
  if (decodes == 0) say_not_decoded();
  if (current == nullptr) return real(scheduler, graph);
  Chain &chain = chain_of(scheduler);
  const bool captured = begin_ubatch(*current, graph);
  chain.engine = current;
  const Watching watching{real_set_callback(__builtin_return_address(0)), scheduler, &chain};
  if (captured) watching.set(scheduler, observe, &chain);
  else watching.set(scheduler, chain.user, chain.user_data);
  return real(scheduler, graph);
}

RING2_INTERPOSED int32_t llama_decode(void *context, Batch batch) {
  static const auto real =
      reinterpret_cast<Decode>(real_function("llama_decode", __builtin_return_address(0)));
  if (real == nullptr) return -1;
  const Decoding decoding(begin_decode(context, reinterpret_cast<const void *>(real), batch));
  return real(context, batch);
}

// Before a server listens: requests can be named from their first one on.
RING2_INTERPOSED void llama_backend_init() {
  static const auto real =
      reinterpret_cast<void (*)()>(real_function("llama_backend_init", __builtin_return_address(0)));
  start_housekeeping();
  if (real != nullptr) real();
}

RING2_INTERPOSED void llama_free(void *context) {
  static const auto real = reinterpret_cast<void (*)(void *)>(
      real_function("llama_free", __builtin_return_address(0)));
  close_engine(context);
  if (real != nullptr) real(context);
}

// For whoever runs llama.cpp in this process: what comes next in a sequence is of this request. 0, or -1
// and one log line when the words are not such. traceparent: W3C, or NULL.
RING2_INTERPOSED int ring2_llama_request(int32_t sequence, const char *request_id,
                                         const char *traceparent) {
  const char *wrong = register_request(sequence, request_id, traceparent);
  if (wrong != nullptr) say("ring2_llama_request: %s; the request was not named", wrong);
  return wrong == nullptr ? 0 : -1;
}

// For whoever calls llama.cpp's functions by address, and so calls this library's of the same names: an
// address of one of llama.cpp's own. Before any other call. 0, or -1 when no library holds it.
RING2_INTERPOSED int ring2_llama_library(const void *function) { return tell_library(function) ? 0 : -1; }

RING2_INTERPOSED void ring2_llama_request_end(int32_t sequence) { unregister_request(sequence); }
