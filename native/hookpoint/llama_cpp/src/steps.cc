#include "steps.h"

#include "cells.h"
#include "options.h"
#include "rows.h"

namespace ring2_llama {

namespace {

// A group whose request and phase are known, and whether anybody wants it.
struct Part {
  Group group;
  Request *request;
  bool prefill;
};

bool is_sampled(const Request &request) {
  if (request.traceparent.size() < 55) return false;
  const char digit = request.traceparent[54];
  return ((digit <= '9' ? digit - '0' : digit - 'a' + 10) & 1) != 0;
}

ring2_step_row row_of(const Part &part, int32_t index, int32_t offset) {
  ring2_step_row row{};
  row.request_key = part.request->key;
  row.token_start = part.group.position;
  row.token_end = part.group.position + static_cast<int32_t>(part.group.count);
  row.index = index;
  row.row_offset = offset;
  row.phase = part.prefill ? RING2_PHASE_PREFILL : RING2_PHASE_DECODE;
  return row;
}

int64_t write(Engine &engine, uint32_t columns, uint8_t layout, uint8_t flags,
              const std::vector<ring2_step_row> &rows) {
  ring2_step_header header{};
  header.step = engine.next_step++;
  header.row_count = static_cast<uint32_t>(rows.size());
  header.columns = columns;
  header.layout = layout;
  header.flags = flags;
  header.control_sequence = engine.ubatch.control.sequence;
  ring2_write_step(engine.producer, &header, rows.data());
  return header.step;
}

void add_run(Step *step, uint32_t start, uint32_t count) {
  if (!step->runs.empty() && step->runs.back().start + step->runs.back().count == start) {
    step->runs.back().count += count;
  } else {
    step->runs.push_back({start, count});
  }
}

bool is_whole(const Step &step) {
  return step.runs.size() == 1 && step.runs[0].start == 0 && step.runs[0].count == step.rows_in;
}

void write_all(Engine &engine, const std::vector<Part> &parts) {
  Step &step = engine.ubatch.all;
  step.rows_in = engine.ubatch.tokens;
  std::vector<ring2_step_row> rows;
  uint32_t columns = 0;
  for (const Part &part : parts) {
    rows.push_back(row_of(part, static_cast<int32_t>(rows.size()), static_cast<int32_t>(columns)));
    add_run(&step, part.group.row, part.group.count);
    columns += part.group.count;
    ++part.request->steps;
  }
  if (rows.empty()) return;
  step.whole = is_whole(step);
  step.number = write(engine, columns, RING2_STEP_PACKED, 0, rows);
}

// Batched, with one entry for each row, as a request may have several rows of logits or none.
void write_outputs(Engine &engine, const std::vector<Part> &parts) {
  const Ubatch &ubatch = engine.ubatch;
  Step &step = engine.ubatch.output;
  step.rows_in = static_cast<uint32_t>(ubatch.outputs.size());
  std::vector<ring2_step_row> rows;
  for (uint32_t i = 0; i < ubatch.outputs.size(); ++i) {
    const uint32_t row = ubatch.outputs[i];
    for (const Part &part : parts) {
      if (row < part.group.row || row >= part.group.row + part.group.count) continue;
      Part kept = part;
      kept.group.position = part.group.position + static_cast<int32_t>(row - part.group.row);
      kept.group.count = 1;
      rows.push_back(row_of(kept, static_cast<int32_t>(rows.size()), 0));
      add_run(&step, i, 1);
    }
  }
  if (rows.empty() || rows.size() > RING2_STEP_ROWS_MAX) return;
  step.whole = is_whole(step);
  step.number = write(engine, 1, RING2_STEP_BATCHED, RING2_STEP_EXTRA, rows);
}

void write_queries(Engine &engine, const std::vector<Part> &parts) {
  for (const Part &part : parts) {
    Query query;
    query.sequence = part.group.sequence;
    query.row = part.group.row + part.group.count - 1;
    query.position = part.group.position + static_cast<int32_t>(part.group.count) - 1;
    query.cells = cells_of(engine, query.sequence, query.position);
    if (query.cells.empty()) {
      ring2_count_loss(engine.producer, RING2_LOSS_UNSUPPORTED, 1, 0);
      continue;
    }
    Part kept = part;
    kept.group.position = query.position;
    kept.group.count = 1;
    query.step = write(engine, 1, RING2_STEP_BATCHED, RING2_STEP_EXTRA, {row_of(kept, 0, 0)});
    engine.ubatch.queries.push_back(std::move(query));
  }
}

}  // namespace

void write_steps(Engine &engine, bool attention) {
  Ubatch &ubatch = engine.ubatch;
  uint32_t uncertain = 0;
  std::vector<Part> parts;
  const std::vector<Group> groups = group_rows(ubatch.rows, &uncertain);
  for (const Group &group : groups) {
    bool prefill = false;
    Request &request = request_of(engine, group, &prefill);
    const int32_t end = group.position + static_cast<int32_t>(group.count);
    const uint32_t phase = prefill ? RING2_PHASE_PREFILL : RING2_PHASE_DECODE;
    const bool wanted =
        !ring2_control_wants_nothing(&ubatch.control) &&
        ring2_control_wants_request(&ubatch.control, request.id.data(), request.id.size(),
                                    is_sampled(request)) &&
        ring2_control_wants_tokens(&ubatch.control, phase, group.position, end);
    if (wanted && parts.size() < RING2_STEP_ROWS_MAX) parts.push_back({group, &request, prefill});
  }
  if (uncertain > 0) ring2_count_loss(engine.producer, RING2_LOSS_UNSUPPORTED, uncertain, 0);
  if (parts.empty()) return;
  announce_model(engine);
  for (const Part &part : parts) announce(engine, *part.request);
  write_all(engine, parts);
  const bool one_each = groups.size() == ubatch.tokens && ubatch.outputs.size() == ubatch.tokens;
  if (!one_each) write_outputs(engine, parts);
  if (attention) write_queries(engine, parts);
}

}  // namespace ring2_llama
