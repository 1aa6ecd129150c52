#include "cells.h"

#include "rows.h"

namespace ring2_llama {

namespace {

constexpr int32_t kPositionsMax = 1 << 22;

}  // namespace

void learn_cells(Engine &engine) {
  const Plan &plan = engine.plan;
  if (plan.cell_ids == nullptr || plan.cache->ne[1] <= 0) return;
  const std::vector<int64_t> ids = read_int64(*engine.facts, plan.cell_ids);
  if (ids.size() != engine.ubatch.rows.size()) return forget_cells(engine);
  for (size_t i = 0; i < ids.size(); ++i) {
    const BatchRow &row = engine.ubatch.rows[i];
    if (row.sequence < 0 || row.position < 0 || row.position >= kPositionsMax) continue;
    std::vector<int64_t> &known = engine.cells[row.sequence];
    const auto place = static_cast<size_t>(row.position);
    if (known.size() <= place) known.resize(place + 1, -1);
    known[place] = ids[i] % plan.cache->ne[1];
  }
}

void forget_cells(Engine &engine) { engine.cells.clear(); }

std::vector<int64_t> cells_of(const Engine &engine, int32_t sequence, int32_t position) {
  const auto found = engine.cells.find(sequence);
  if (found == engine.cells.end()) return {};
  const std::vector<int64_t> &known = found->second;
  const auto count = static_cast<size_t>(position) + 1;
  if (position < 0 || known.size() < count) return {};
  for (size_t i = 0; i < count; ++i) {
    if (known[i] < 0) return {};
  }
  return {known.begin(), known.begin() + static_cast<ptrdiff_t>(count)};
}

}  // namespace ring2_llama
