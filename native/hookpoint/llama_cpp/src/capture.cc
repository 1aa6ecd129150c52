#include "capture.h"

#include <cstring>
#include <exception>
#include <initializer_list>
#include <utility>

#include "cells.h"
#include "options.h"
#include "pattern.h"
#include "ring2_hooks.h"
#include "rows.h"
#include "steps.h"

namespace ring2_llama {

namespace {

uint32_t dtype_of(const char *name) {
  if (std::strcmp(name, "f32") == 0) return RING2_DTYPE_FLOAT32;
  if (std::strcmp(name, "f16") == 0) return RING2_DTYPE_FLOAT16;
  if (std::strcmp(name, "bf16") == 0) return RING2_DTYPE_BFLOAT16;
  return std::strcmp(name, "i32") == 0 ? RING2_DTYPE_INT32 : 0;
}

// The axes of the catalogue, slowest first: [rows, width] or [rows, heads, width]. llama.cpp's own are
// fastest first, sometimes with the heads in one axis with the width.
bool shape_of(const Engine &engine, const Tap &tap, ring2_tensor *out) {
  const Tensor *tensor = tap.node;
  const size_t element = ring2_dtype_bytes(out->dtype);
  const auto set = [&](std::initializer_list<std::pair<int64_t, size_t>> axes) {
    for (const auto &[length, bytes] : axes) {
      out->dims[out->ndim] = length;
      out->strides[out->ndim++] = static_cast<int64_t>(bytes / element);
    }
    return true;
  };
  const int64_t *ne = tensor->ne;
  const size_t *nb = tensor->nb;
  if (ne[3] != 1) return false;
  if (ring2_hook_facts[tap.hook].axes == 3) {
    const bool queries = tap.hook == RING2_HOOK_Q || tap.hook == RING2_HOOK_Z;
    const int64_t heads = queries ? engine.heads : engine.kv_heads;
    const int64_t tokens = engine.ubatch.tokens;
    if (ne[2] == tokens && ne[1] == heads) return set({{ne[2], nb[2]}, {ne[1], nb[1]}, {ne[0], nb[0]}});
    if (ne[2] != 1 || ne[1] != tokens || heads <= 0 || ne[0] % heads != 0) return false;
    const int64_t width = ne[0] / heads;
    return set({{ne[1], nb[1]}, {heads, static_cast<size_t>(width) * nb[0]}, {width, nb[0]}});
  }
  // As they are looked up, the weights of experts are [1, chosen, rows].
  const bool column = tap.hook == RING2_HOOK_TOPK_WEIGHTS && ne[0] == 1 &&
                      std::strcmp(engine.facts->op_desc(tensor), "GET_ROWS") == 0;
  if (column) return set({{ne[2], nb[2]}, {ne[1], nb[1]}});
  return ne[2] == 1 && set({{ne[1], nb[1]}, {ne[0], nb[0]}});
}

// Of several rows of one request, a packed step has the logits of the last one only: then those of all
// are in the step of the outputs.
const Step *step_of(const Ubatch &ubatch, uint32_t hook, int64_t rows) {
  const bool logits = hook == RING2_HOOK_FINAL_LOGITS;
  if (rows == ubatch.output.rows_in && ubatch.output.number >= 0 && (logits || rows != ubatch.all.rows_in)) {
    return &ubatch.output;
  }
  return rows == ubatch.all.rows_in && ubatch.all.number >= 0 ? &ubatch.all : nullptr;
}

void refuse(Engine &engine, uint64_t records) {
  ring2_count_loss(engine.producer, RING2_LOSS_UNSUPPORTED, records, 0);
}

void write_values(Engine &engine, const Tap &tap) {
  const Tensor *source = tap.node;
  ring2_tensor tensor{};
  tensor.hook = tap.hook;
  tensor.layer = tap.layer;
  tensor.dtype = dtype_of(engine.facts->type_name(source->type));
  if (tensor.dtype == 0 || !shape_of(engine, tap, &tensor)) return refuse(engine, 1);
  const int64_t rows = tensor.dims[0];
  const Step *step = step_of(engine.ubatch, tap.hook, rows);
  if (step == nullptr) {
    // Rows that go on to the logits, none of which anybody wants, are no loss.
    const auto outputs = static_cast<int64_t>(engine.ubatch.outputs.size());
    if (rows != outputs && rows != engine.ubatch.tokens) refuse(engine, 1);
    return;
  }
  if (step == &engine.ubatch.output) {
    // One entry of the batch axis for each row: [rows, 1, width].
    std::memmove(&tensor.dims[2], &tensor.dims[1], sizeof tensor.dims[0] * (tensor.ndim - 1));
    std::memmove(&tensor.strides[2], &tensor.strides[1], sizeof tensor.strides[0] * (tensor.ndim - 1));
    tensor.dims[1] = 1;
    tensor.strides[1] = tensor.strides[0];
    ++tensor.ndim;
  }
  tensor.step = step->number;
  std::vector<uint8_t> copy;
  const void *data = host_bytes(*engine.facts, source, &copy);
  if (data == nullptr) return refuse(engine, 1);
  if (step->whole) ring2_write_tensor(engine.producer, &tensor, data);
  else ring2_write_tensor_runs(engine.producer, &tensor, data, step->runs.data(),
                               static_cast<uint32_t>(step->runs.size()));
}

void write_token_ids(Engine &engine) {
  const Ubatch &ubatch = engine.ubatch;
  if (ubatch.all.number < 0 || !ring2_control_wants(&ubatch.control, RING2_HOOK_TOKEN_IDS, -1)) return;
  if ((options().hooks >> RING2_HOOK_TOKEN_IDS & 1) == 0) return;
  std::vector<int32_t> ids;
  for (const BatchRow &row : ubatch.rows) ids.push_back(row.token);
  ring2_tensor tensor{};
  tensor.hook = RING2_HOOK_TOKEN_IDS;
  tensor.layer = -1;
  tensor.dtype = RING2_DTYPE_INT32;
  tensor.ndim = 1;
  tensor.step = ubatch.all.number;
  tensor.dims[0] = static_cast<int64_t>(ids.size());
  tensor.strides[0] = 1;
  ring2_write_tensor_runs(engine.producer, &tensor, ids.data(), ubatch.all.runs.data(),
                          static_cast<uint32_t>(ubatch.all.runs.size()));
}

bool is_wanted(const Ubatch &ubatch, const Tap &tap) {
  if (!ring2_control_wants(&ubatch.control, tap.hook, tap.layer)) return false;
  return tap.kind == TapKind::kValues ? ubatch.all.number >= 0 : !ubatch.queries.empty();
}

void prepare(Engine &engine, void *graph) {
  Ubatch &ubatch = engine.ubatch;
  ubatch = {};
  if (!engine.plan.valid) {
    engine.plan = make_plan(*engine.facts, graph, options().hooks);
    if (!engine.plan.valid) return refuse(engine, 1);
  }
  ring2_take_control(engine.producer, &ubatch.control);
  ubatch.tokens = engine.plan.tokens;
  if (!match_rows(engine)) {
    ubatch.rows.clear();
    forget_cells(engine);
    return refuse(engine, engine.plan.taps.size());
  }
  const bool attention = (options().hooks >> RING2_HOOK_PATTERN & 1) != 0;
  if (attention) learn_cells(engine);
  const auto &patterns = ubatch.control.wanted[RING2_HOOK_PATTERN];
  const bool pattern_wanted = (patterns[0] | patterns[1] | patterns[2] | patterns[3]) != 0;
  write_steps(engine, attention && pattern_wanted);
  write_token_ids(engine);
  for (const Tap &tap : engine.plan.taps) {
    if (is_wanted(ubatch, tap)) ubatch.taps.push_back(&tap);
  }
}

// Whether the capture asks for this node; the graph's nodes come in order, so one look is enough.
bool asks_for(const Engine &engine, const Tensor *tensor) {
  const Ubatch &ubatch = engine.ubatch;
  return engine.active && ubatch.next < ubatch.taps.size() && ubatch.taps[ubatch.next]->node == tensor;
}

void take(Engine &engine, const Tensor *tensor) {
  try {
    while (asks_for(engine, tensor)) {
      const Tap &tap = *engine.ubatch.taps[engine.ubatch.next++];
      if (tap.kind == TapKind::kValues) write_values(engine, tap);
      else write_pattern(engine, tap);
    }
  } catch (const std::exception &error) {
    disable(engine, error.what());
  }
}

}  // namespace

bool begin_ubatch(Engine &engine, void *graph) {
  try {
    const std::lock_guard guard(engine.lock);
    if (!engine.active) return false;
    prepare(engine, graph);
    return !engine.ubatch.taps.empty();
  } catch (const std::exception &error) {
    disable(engine, error.what());
    return false;
  }
}

bool observe(Tensor *tensor, bool ask, void *user) {
  Chain &chain = *static_cast<Chain *>(user);
  if (ask) {
    chain.user_asked = chain.user != nullptr && chain.user(tensor, true, chain.user_data);
    return asks_for(*chain.engine, tensor) || chain.user_asked;
  }
  take(*chain.engine, tensor);
  return chain.user_asked ? chain.user(tensor, false, chain.user_data) : true;
}

}  // namespace ring2_llama
