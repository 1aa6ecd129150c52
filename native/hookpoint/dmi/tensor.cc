#include "tensor.h"

#include <string>

#include "ring2_hooks.h"

namespace ring2::dmi {
namespace {

struct Dtype {
  std::string_view name;
  uint32_t dtype;
};

constexpr Dtype kDtypes[] = {
    {"float", RING2_DTYPE_FLOAT32},   {"float32", RING2_DTYPE_FLOAT32},
    {"double", RING2_DTYPE_FLOAT64},  {"float64", RING2_DTYPE_FLOAT64},
    {"half", RING2_DTYPE_FLOAT16},    {"float16", RING2_DTYPE_FLOAT16},
    {"bfloat16", RING2_DTYPE_BFLOAT16}, {"uint8", RING2_DTYPE_UINT8},
    {"int8", RING2_DTYPE_INT8},       {"short", RING2_DTYPE_INT16},
    {"int16", RING2_DTYPE_INT16},     {"int", RING2_DTYPE_INT32},
    {"int32", RING2_DTYPE_INT32},     {"long", RING2_DTYPE_INT64},
    {"int64", RING2_DTYPE_INT64},     {"bool", RING2_DTYPE_BOOL},
};

constexpr uint32_t kSliceAxesMax = 4;

void drop_prefix(std::string_view &text, std::string_view prefix) {
  if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
}

// The shape as [1, …]; logits of one row may lack the axis of rows.
const char *shape(const Row &row, uint32_t kind, uint32_t axes, ring2_tensor *out) {
  const int64_t tokens = row.end - row.start;
  const bool batched = row.ndim == axes + 1 && row.shape[0] == 1;
  uint32_t from = batched ? 1 : 0;
  out->dims[0] = 1;
  out->ndim = 1;
  if (kind == RING2_SHAPE_REQUEST && row.ndim == 1) out->dims[out->ndim++] = 1;
  for (; from < row.ndim; ++from) {
    if (row.shape[from] < 0 || row.shape[from] > INT32_MAX || out->ndim > kSliceAxesMax) {
      return "a shape that no tensor of a hook has";
    }
    out->dims[out->ndim++] = row.shape[from];
  }
  const uint32_t token_axis = kind == RING2_SHAPE_ATTENTION ? 2 : 1;
  if (kind == RING2_SHAPE_ATTENTION && out->ndim != 4) return "attention without three axes";
  if (out->ndim <= token_axis) return "too few axes";
  if (out->dims[token_axis] != tokens) return "another number of tokens than its range has";
  return nullptr;
}

}  // namespace

int hook_of(std::string_view act_name) {
  drop_prefix(act_name, "blocks.");
  drop_prefix(act_name, "attn.");
  drop_prefix(act_name, "mlp.");
  drop_prefix(act_name, "hook_");
  for (int hook = 0; hook < static_cast<int>(RING2_HOOKS_MAX); ++hook) {
    const char *const name = ring2_hook_facts[hook].name;
    if (name != nullptr && act_name == name) return hook;
  }
  return -1;
}

uint32_t dtype_of(std::string_view name) {
  drop_prefix(name, "torch.");
  for (const Dtype &known : kDtypes) {
    if (known.name == name) return known.dtype;
  }
  return 0;
}

const char *describe(const Row &row, uint64_t bytes, ring2_tensor *out) {
  *out = {};
  if (row.broken) return "a field that is empty or too long";
  const int hook = hook_of(row.act_name);
  if (hook < 0) return "a hook that is not in the catalogue";
  const ring2_hook_fact &fact = ring2_hook_facts[hook];
  const bool global = row.layer == -1;
  if (row.layer < -1 || row.layer >= static_cast<int64_t>(RING2_LAYERS_MAX) ||
      global == (fact.layered != 0)) {
    return "a layer that its hook does not have";
  }
  if (row.start < 0 || row.end <= row.start || row.end > INT32_MAX) return "no range of tokens";
  if (row.shard < 0 || row.shard > UINT16_MAX) return "no rank of a shard";
  out->hook = static_cast<uint32_t>(hook);
  out->layer = static_cast<int32_t>(row.layer);
  out->tp_rank = static_cast<uint16_t>(row.shard);
  out->dtype = dtype_of(row.dtype);
  if (out->dtype == 0) return "a dtype that cannot be measured";
  const char *const wrong = shape(row, fact.shape, fact.axes, out);
  if (wrong != nullptr) return wrong;
  uint64_t expected = ring2_dtype_bytes(out->dtype);
  for (uint32_t axis = 0; axis < out->ndim; ++axis) {
    if (__builtin_mul_overflow(expected, static_cast<uint64_t>(out->dims[axis]), &expected)) {
      return "a shape beyond all memory";
    }
  }
  if (expected == 0) return "no elements";
  return expected == bytes ? nullptr : "another number of bytes than its shape has";
}

}  // namespace ring2::dmi
