#include "rows.h"

#include <cstring>

namespace ring2_llama {

namespace {

constexpr int32_t kRowsMax = 1 << 20;

template <typename Element>
std::vector<Element> read_elements(const Facts &facts, const Tensor *tensor) {
  std::vector<uint8_t> copy;
  std::vector<Element> out(static_cast<size_t>(tensor->ne[0]));
  const void *bytes = host_bytes(facts, tensor, &copy);
  if (bytes == nullptr) return {};
  std::memcpy(out.data(), bytes, out.size() * sizeof(Element));
  return out;
}

// Without a cache of several streams, rows come in the batch's order: the next that are not taken.
bool match_in_order(Engine &engine, const std::vector<int32_t> &tokens,
                    const std::vector<int32_t> &positions) {
  size_t row = 0;
  while (row < engine.batch.size() && engine.batch[row].taken) ++row;
  if (row + tokens.size() > engine.batch.size()) return false;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const BatchRow &known = engine.batch[row + i];
    if (known.taken || known.token != tokens[i] || known.position != positions[i]) return false;
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    engine.batch[row + i].taken = true;
    engine.ubatch.rows.push_back(engine.batch[row + i]);
  }
  return true;
}

// The stream that a row's key is written to is its sequence; llama.cpp takes each sequence's rows in order.
bool match_by_stream(Engine &engine, const std::vector<int32_t> &tokens,
                     const std::vector<int32_t> &positions) {
  const std::vector<int64_t> cells = read_int64(*engine.facts, engine.plan.cell_ids);
  if (cells.size() != tokens.size()) return false;
  const int64_t stream_cells = engine.plan.cache->ne[1];
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto sequence = static_cast<int32_t>(cells[i] / stream_cells);
    BatchRow *found = nullptr;
    for (BatchRow &row : engine.batch) {
      if (row.taken || row.sequence != sequence) continue;
      found = &row;
      break;
    }
    if (found == nullptr || found->token != tokens[i] || found->position != positions[i]) return false;
    found->taken = true;
    engine.ubatch.rows.push_back(*found);
  }
  return true;
}

// Where the order is not known, a row is certain only when no other row of the batch looks like it.
bool match_by_looks(Engine &engine, const std::vector<int32_t> &tokens,
                    const std::vector<int32_t> &positions) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    BatchRow *found = nullptr;
    for (BatchRow &row : engine.batch) {
      if (row.taken || row.token != tokens[i] || row.position != positions[i]) continue;
      if (found != nullptr && found->sequence != row.sequence) return false;
      if (found == nullptr) found = &row;
    }
    if (found == nullptr) return false;
    found->taken = true;
    engine.ubatch.rows.push_back(*found);
  }
  return true;
}

bool match_outputs(Engine &engine) {
  Ubatch &ubatch = engine.ubatch;
  if (engine.plan.output_ids == nullptr) {
    for (uint32_t row = 0; row < ubatch.tokens; ++row) ubatch.outputs.push_back(row);
    return true;
  }
  for (const int32_t row : read_int32(*engine.facts, engine.plan.output_ids)) {
    if (row < 0 || static_cast<uint32_t>(row) >= ubatch.tokens) return false;
    if (!ubatch.outputs.empty() && static_cast<uint32_t>(row) <= ubatch.outputs.back()) return false;
    ubatch.outputs.push_back(static_cast<uint32_t>(row));
  }
  return true;
}

}  // namespace

size_t spanned_bytes(const Tensor *tensor, size_t element_bytes) {
  size_t bytes = element_bytes;
  for (int axis = 0; axis < 4; ++axis) {
    bytes += static_cast<size_t>(tensor->ne[axis] - 1) * tensor->nb[axis];
  }
  return bytes;
}

const void *host_bytes(const Facts &facts, const Tensor *tensor, std::vector<uint8_t> *copy) {
  void *buffer = tensor->view_src != nullptr ? tensor->view_src->buffer : tensor->buffer;
  if (buffer == nullptr || facts.buffer_is_host(buffer)) return tensor->data;
  copy->resize(spanned_bytes(tensor, tensor->nb[0]));
  facts.tensor_get(tensor, copy->data(), 0, copy->size());
  return copy->data();
}

std::vector<int32_t> read_int32(const Facts &facts, const Tensor *tensor) {
  if (std::strcmp(facts.type_name(tensor->type), "i32") != 0) return {};
  return read_elements<int32_t>(facts, tensor);
}

std::vector<int64_t> read_int64(const Facts &facts, const Tensor *tensor) {
  if (std::strcmp(facts.type_name(tensor->type), "i64") == 0) return read_elements<int64_t>(facts, tensor);
  const std::vector<int32_t> narrow = read_int32(facts, tensor);
  return {narrow.begin(), narrow.end()};
}

bool read_batch(Engine &engine, const Batch &batch) {
  engine.batch.clear();
  if (batch.token == nullptr || batch.n_tokens <= 0 || batch.n_tokens > kRowsMax) return false;
  const Facts &facts = *engine.facts;
  const int32_t next = batch.pos != nullptr ? 0 : facts.seq_pos_max(engine.memory, 0) + 1;
  for (int32_t i = 0; i < batch.n_tokens; ++i) {
    BatchRow row{batch.token[i], batch.pos != nullptr ? batch.pos[i] : next + i, 0, false, false};
    if (batch.seq_id != nullptr && batch.n_seq_id != nullptr) {
      row.sequence = batch.n_seq_id[i] == 1 ? batch.seq_id[i][0] : -1;
    }
    if (row.sequence >= kSequencesMax) row.sequence = -1;
    row.output = batch.logits != nullptr ? batch.logits[i] != 0 : i == batch.n_tokens - 1;
    engine.batch.push_back(row);
  }
  return true;
}

bool match_rows(Engine &engine) {
  const Plan &plan = engine.plan;
  const std::vector<int32_t> tokens = read_int32(*engine.facts, plan.token_ids);
  const std::vector<int32_t> positions = read_int32(*engine.facts, plan.positions);
  if (tokens.empty() || tokens.size() != positions.size()) return false;
  bool matched = false;
  if (plan.cache != nullptr && plan.cache->ne[2] > 1) matched = match_by_stream(engine, tokens, positions);
  else if (plan.cache != nullptr && !plan.recurrent) matched = match_in_order(engine, tokens, positions);
  else matched = match_by_looks(engine, tokens, positions);
  return matched && match_outputs(engine);
}

std::vector<Group> group_rows(const std::vector<BatchRow> &rows, uint32_t *uncertain) {
  std::vector<Group> groups;
  std::vector<bool> seen(kSequencesMax, false);
  for (uint32_t row = 0; row < rows.size(); ++row) {
    const BatchRow &one = rows[row];
    if (one.sequence < 0) {
      ++*uncertain;
      continue;
    }
    Group *last = groups.empty() ? nullptr : &groups.back();
    const bool follows = last != nullptr && last->sequence == one.sequence &&
                         last->row + last->count == row &&
                         last->position + static_cast<int32_t>(last->count) == one.position;
    if (follows) {
      ++last->count;
      last->all_outputs = last->all_outputs && one.output;
      last->last_output = one.output;
    } else if (seen[static_cast<size_t>(one.sequence)]) {
      ++*uncertain;  // a second run of one sequence: a STEP has one row for each request
    } else {
      seen[static_cast<size_t>(one.sequence)] = true;
      groups.push_back({one.sequence, one.position, row, 1, one.output, one.output});
    }
  }
  return groups;
}

}  // namespace ring2_llama
