// Functions that move, drop or overwrite cells of the key cache behind the graph's back. What is known of
// cells is forgotten; a sequence that is cleared has ended its request.
#include "cells.h"
#include "engine.h"
#include "requests.h"

#define RING2_INTERPOSED extern "C" __attribute__((visibility("default"), noinline))

using namespace ring2_llama;

namespace {

void forget_all() {
  for_each_engine([](Engine &engine, void *) { forget_cells(engine); }, nullptr);
}

void cleared(const void *memory, int32_t sequence, int32_t from, int32_t to) {
  Engine *engine = engine_of_memory(memory);
  if (engine == nullptr) return;
  const std::lock_guard guard(engine->lock);
  if (!engine->active) return;
  const bool whole = from <= 0 && to < 0;
  for (auto &[number, one] : engine->sequences) {
    const bool meant = sequence < 0 || number == sequence;
    // Who registered a request says when it is over.
    if (meant && whole && one.open.has_value() && one.open->registration == 0) {
      end_request(*engine, one, "ok");
    }
  }
}

void forget(const void *memory) {
  Engine *engine = engine_of_memory(memory);
  if (engine == nullptr) return;
  const std::lock_guard guard(engine->lock);
  forget_cells(*engine);
}

}  // namespace

#define RING2_REAL(type, name) \
  static const auto real = reinterpret_cast<type>(real_function(name, __builtin_return_address(0)))

RING2_INTERPOSED bool llama_memory_seq_rm(void *memory, int32_t sequence, int32_t from, int32_t to) {
  RING2_REAL(bool (*)(void *, int32_t, int32_t, int32_t), "llama_memory_seq_rm");
  cleared(memory, sequence, from, to);
  return real != nullptr && real(memory, sequence, from, to);
}

RING2_INTERPOSED void llama_memory_clear(void *memory, bool data) {
  RING2_REAL(void (*)(void *, bool), "llama_memory_clear");
  cleared(memory, -1, -1, -1);
  forget(memory);
  if (real != nullptr) real(memory, data);
}

RING2_INTERPOSED void llama_memory_seq_cp(void *memory, int32_t source, int32_t target, int32_t from,
                                          int32_t to) {
  RING2_REAL(void (*)(void *, int32_t, int32_t, int32_t, int32_t), "llama_memory_seq_cp");
  forget(memory);
  if (real != nullptr) real(memory, source, target, from, to);
}

RING2_INTERPOSED void llama_memory_seq_add(void *memory, int32_t sequence, int32_t from, int32_t to,
                                           int32_t delta) {
  RING2_REAL(void (*)(void *, int32_t, int32_t, int32_t, int32_t), "llama_memory_seq_add");
  forget(memory);
  if (real != nullptr) real(memory, sequence, from, to, delta);
}

RING2_INTERPOSED void llama_memory_seq_div(void *memory, int32_t sequence, int32_t from, int32_t to,
                                           int divisor) {
  RING2_REAL(void (*)(void *, int32_t, int32_t, int32_t, int), "llama_memory_seq_div");
  forget(memory);
  if (real != nullptr) real(memory, sequence, from, to, divisor);
}

RING2_INTERPOSED size_t llama_state_set_data(void *context, const uint8_t *bytes, size_t size) {
  RING2_REAL(size_t(*)(void *, const uint8_t *, size_t), "llama_state_set_data");
  forget_all();
  return real == nullptr ? 0 : real(context, bytes, size);
}

RING2_INTERPOSED bool llama_state_load_file(void *context, const char *path, int32_t *tokens,
                                            size_t capacity, size_t *count) {
  RING2_REAL(bool (*)(void *, const char *, int32_t *, size_t, size_t *), "llama_state_load_file");
  forget_all();
  return real != nullptr && real(context, path, tokens, capacity, count);
}

RING2_INTERPOSED size_t llama_state_seq_set_data(void *context, const uint8_t *bytes, size_t size,
                                                 int32_t sequence) {
  RING2_REAL(size_t(*)(void *, const uint8_t *, size_t, int32_t), "llama_state_seq_set_data");
  forget_all();
  return real == nullptr ? 0 : real(context, bytes, size, sequence);
}

RING2_INTERPOSED size_t llama_state_seq_set_data_ext(void *context, const uint8_t *bytes, size_t size,
                                                     int32_t sequence, uint32_t flags) {
  RING2_REAL(size_t(*)(void *, const uint8_t *, size_t, int32_t, uint32_t), "llama_state_seq_set_data_ext");
  forget_all();
  return real == nullptr ? 0 : real(context, bytes, size, sequence, flags);
}

RING2_INTERPOSED size_t llama_state_seq_load_file(void *context, const char *path, int32_t sequence,
                                                  int32_t *tokens, size_t capacity, size_t *count) {
  RING2_REAL(size_t(*)(void *, const char *, int32_t, int32_t *, size_t, size_t *),
             "llama_state_seq_load_file");
  forget_all();
  return real == nullptr ? 0 : real(context, path, sequence, tokens, capacity, count);
}
