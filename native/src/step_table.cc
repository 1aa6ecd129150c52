#include "step_table.h"

#include <algorithm>
#include <cstring>

namespace ring2 {

namespace {

const char *row_defect(const ring2_step_header &header, const ring2_step_row &row) {
  if (row.request_key == 0) return "request_key 0";
  if (row.token_start < 0 || row.token_end < row.token_start) return "token range";
  if (row.index < 0 || row.row_offset < 0 || row.kv_offset < 0) return "negative offset";
  const int64_t end = int64_t{row.row_offset} + row.token_end - row.token_start;
  if (end > int64_t{header.columns}) return "rows beyond the token axis";
  if (row.phase > RING2_PHASE_DECODE) return "phase";
  return nullptr;
}

}  // namespace

const char *StepTable::add(const uint8_t *body, uint64_t bytes) {
  ring2_step_header header;
  if (bytes < sizeof header) return "shorter than a step header";
  std::memcpy(&header, body, sizeof header);
  if (header.row_count > RING2_STEP_ROWS_MAX) return "too many rows";
  if (bytes != sizeof header + uint64_t{header.row_count} * sizeof(ring2_step_row)) {
    return "row count and length disagree";
  }
  if (header.layout > RING2_STEP_PACKED) return "layout";
  Step step;
  step.columns = header.columns;
  step.layout = header.layout;
  step.extra = (header.flags & RING2_STEP_EXTRA) != 0;
  step.rows.resize(header.row_count);
  if (header.row_count > 0) {
    std::memcpy(step.rows.data(), body + sizeof header, bytes - sizeof header);
  }
  for (const ring2_step_row &row : step.rows) {
    if (const char *defect = row_defect(header, row)) return defect;
  }
  const bool known = !steps_.insert_or_assign(header.step, std::move(step)).second;
  // A step that is announced again is the newest.
  if (known) order_.erase(std::find(order_.begin(), order_.end(), header.step));
  order_.push_back(header.step);
  if (order_.size() > kStepsMax) {
    steps_.erase(order_.front());
    order_.pop_front();
  }
  return nullptr;
}

const Step *StepTable::find(int64_t step) const {
  const auto found = steps_.find(step);
  return found == steps_.end() ? nullptr : &found->second;
}

}  // namespace ring2
