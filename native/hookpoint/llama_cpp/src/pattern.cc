#include "pattern.h"

#include <cmath>
#include <cstring>

#include "halves.h"
#include "rows.h"

namespace ring2_llama {

namespace {

constexpr float kRowSumError = 1e-3F;

enum class Kind { kFloat32, kFloat16, kOther };

Kind kind_of(const Facts &facts, const Tensor *tensor) {
  const char *name = facts.type_name(tensor->type);
  if (std::strcmp(name, "f32") == 0) return Kind::kFloat32;
  return std::strcmp(name, "f16") == 0 ? Kind::kFloat16 : Kind::kOther;
}

// A tensor whose bytes are at hand.
struct View {
  const uint8_t *bytes = nullptr;
  const Tensor *tensor = nullptr;
  Kind kind = Kind::kOther;
  std::vector<uint8_t> copy;

  bool open(const Facts &facts, const Tensor *of) {
    tensor = of;
    if (of == nullptr) return false;
    kind = kind_of(facts, of);
    if (kind == Kind::kOther) return false;
    bytes = static_cast<const uint8_t *>(host_bytes(facts, of, &copy));
    return bytes != nullptr;
  }

  const uint8_t *at(int64_t i1, int64_t i2, int64_t i3) const {
    return bytes + static_cast<size_t>(i1) * tensor->nb[1] + static_cast<size_t>(i2) * tensor->nb[2] +
           static_cast<size_t>(i3) * tensor->nb[3];
  }
};

// Where a row of the ubatch is in a tensor of [·, rows of a stream, ·, streams].
struct Place {
  int64_t row;
  int64_t stream;
};

bool place_of(const Engine &engine, uint32_t row, int64_t streams, Place *place) {
  if (streams < 1 || engine.ubatch.tokens % streams != 0) return false;
  const int64_t rows = engine.ubatch.tokens / streams;
  *place = {row % rows, row / rows};
  return true;
}

// Every key of the query must be visible, and no other one.
bool mask_agrees(const View &mask, const Place &place, const Query &query, int64_t cells) {
  const int64_t stream = mask.tensor->ne[3] > 1 ? place.stream : 0;
  if (place.row >= mask.tensor->ne[1] || mask.tensor->ne[0] < cells) return false;
  const uint8_t *row = mask.at(place.row, 0, stream);
  const auto value = [&](int64_t cell) {
    if (mask.kind == Kind::kFloat32) return reinterpret_cast<const float *>(row)[cell];
    return half_to_float(reinterpret_cast<const uint16_t *>(row)[cell]);
  };
  size_t visible = 0;
  for (int64_t cell = 0; cell < cells; ++cell) {
    const float bias = value(cell);
    if (bias != 0.0F && !(std::isinf(bias) && bias < 0)) return false;
    visible += bias == 0.0F ? 1 : 0;
  }
  for (const int64_t cell : query.cells) {
    if (cell >= cells || value(cell) != 0.0F) return false;
  }
  return visible == query.cells.size();
}

void softmax(float *scores, size_t count) {
  float most = scores[0];
  for (size_t i = 1; i < count; ++i) most = std::max(most, scores[i]);
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    scores[i] = std::exp(scores[i] - most);
    sum += scores[i];
  }
  for (size_t i = 0; i < count; ++i) scores[i] = static_cast<float>(scores[i] / sum);
}

bool compute(const Engine &engine, const Tensor *node, const Query &query, const View &queries,
             const View &keys, const View &mask, float *out) {
  Place place{};
  if (!place_of(engine, query.row, queries.tensor->ne[3], &place)) return false;
  if (place.row >= queries.tensor->ne[1] || place.stream >= keys.tensor->ne[3]) return false;
  if (!mask_agrees(mask, place, query, keys.tensor->ne[1])) return false;
  float scale = 0;
  std::memcpy(&scale, node->op_params, sizeof scale);
  const int64_t heads = queries.tensor->ne[2], width = queries.tensor->ne[0];
  const int64_t shared = heads / keys.tensor->ne[2];
  for (int64_t head = 0; head < heads; ++head) {
    const auto *q = reinterpret_cast<const float *>(queries.at(place.row, head, place.stream));
    float *scores = out + static_cast<size_t>(head) * query.cells.size();
    for (size_t i = 0; i < query.cells.size(); ++i) {
      const uint8_t *k = keys.at(query.cells[i], head / shared, place.stream);
      scores[i] = scale * (keys.kind == Kind::kFloat16
                               ? dot_halves(q, reinterpret_cast<const uint16_t *>(k), width)
                               : dot_floats(q, reinterpret_cast<const float *>(k), width));
    }
    softmax(scores, query.cells.size());
  }
  return true;
}

// op_params of a fused attention: scale, largest slope, soft cap.
bool is_plain(const Tensor *node) {
  float parameters[3];
  std::memcpy(parameters, node->op_params, sizeof parameters);
  return parameters[1] == 0.0F && parameters[2] == 0.0F && node->src[4] == nullptr;
}

bool gather(const Engine &engine, const View &weights, const Query &query, float *out) {
  Place place{};
  const Tensor *tensor = weights.tensor;
  if (weights.kind != Kind::kFloat32) return false;
  if (!place_of(engine, query.row, tensor->ne[3], &place) || place.row >= tensor->ne[1]) return false;
  for (int64_t head = 0; head < tensor->ne[2]; ++head) {
    const auto *row = reinterpret_cast<const float *>(weights.at(place.row, head, place.stream));
    double sum = 0;
    for (size_t i = 0; i < query.cells.size(); ++i) {
      if (query.cells[i] >= tensor->ne[0]) return false;
      const float weight = row[query.cells[i]];
      out[static_cast<size_t>(head) * query.cells.size() + i] = weight;
      sum += weight;
    }
    if (std::abs(sum - 1) > kRowSumError) return false;  // keys elsewhere, or an attention sink
  }
  return true;
}

struct Sources {
  View queries, keys, mask, weights;
  int64_t heads = 0;
};

bool open_sources(const Facts &facts, const Tap &tap, Sources *sources) {
  const Tensor *node = tap.node;
  if (tap.kind == TapKind::kAttention) {
    sources->heads = node->ne[2];
    return sources->weights.open(facts, node);
  }
  if (!is_plain(node) || !sources->queries.open(facts, node->src[0]) ||
      !sources->keys.open(facts, node->src[1]) || !sources->mask.open(facts, node->src[3])) {
    return false;
  }
  sources->heads = node->src[0]->ne[2];
  const bool contiguous = node->src[0]->nb[0] == 4;
  return contiguous && sources->queries.kind == Kind::kFloat32 && node->src[1]->ne[2] > 0 &&
         sources->heads % node->src[1]->ne[2] == 0;
}

}  // namespace

void write_pattern(Engine &engine, const Tap &tap) {
  Sources sources;
  const bool usable = open_sources(*engine.facts, tap, &sources);
  for (const Query &query : engine.ubatch.queries) {
    ring2_tensor tensor{};
    tensor.hook = tap.hook;
    tensor.layer = tap.layer;
    tensor.dtype = RING2_DTYPE_FLOAT32;
    tensor.ndim = 4;
    tensor.step = query.step;
    tensor.dims[0] = tensor.dims[2] = 1;
    tensor.dims[1] = sources.heads;
    tensor.dims[3] = static_cast<int64_t>(query.cells.size());
    ring2_claim claim{};
    if (!usable) {
      ring2_count_loss(engine.producer, RING2_LOSS_UNSUPPORTED, 1, 0);
      continue;
    }
    if (ring2_claim_tensor(engine.producer, &tensor, &claim) != RING2_OK) continue;
    auto *out = static_cast<float *>(claim.payload);
    const bool right =
        tap.kind == TapKind::kAttention
            ? gather(engine, sources.weights, query, out)
            : compute(engine, tap.node, query, sources.queries, sources.keys, sources.mask, out);
    if (right) ring2_commit(engine.producer, &claim);
    else ring2_abort(engine.producer, &claim);
  }
}

}  // namespace ring2_llama
