// Whole records in one call: a tensor, parts of one, a JSON body, a STEP.

#include <cstring>
#include <ctime>

#include "error.h"
#include "producer.h"
#include "tensor_shape.h"

using namespace ring2;

namespace {

int check_source(const ring2_tensor *tensor, const void *data) {
  if (tensor == nullptr || data == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null tensor or null tensor data");
  }
  for (uint32_t axis = 0; axis < tensor->ndim && axis < RING2_DIMS_MAX; ++axis) {
    if (tensor->strides[axis] < 0) {
      return ring2_set_error(RING2_E_ARGUMENT, "axis %u has stride %lld; expected 0 or more", axis,
                             static_cast<long long>(tensor->strides[axis]));
    }
  }
  return RING2_OK;
}

// One run of axis 0, row-major. The claim has checked the shape.
void copy_rows(const ring2_tensor &tensor, const uint8_t *data, const ring2_run &run,
               uint8_t *target, uint64_t bytes) {
  uint64_t dims[RING2_DIMS_MAX];
  uint64_t strides[RING2_DIMS_MAX];
  for (uint32_t axis = 0; axis < tensor.ndim; ++axis) {
    dims[axis] = static_cast<uint64_t>(tensor.dims[axis]);
    strides[axis] = static_cast<uint64_t>(tensor.strides[axis]);
  }
  dims[0] = run.count;
  const uint32_t element_bytes = dtype_bytes(tensor.dtype);
  const uint8_t *source =
      data + run.start * static_cast<uint64_t>(tensor.strides[0]) * element_bytes;
  if (is_dense(dims, strides, tensor.ndim)) {
    std::memcpy(target, source, bytes);
  } else {
    gather(source, dims, strides, tensor.ndim, element_bytes, target);
  }
}

}  // namespace

extern "C" {

int ring2_write_tensor(ring2_producer *producer, const ring2_tensor *tensor, const void *data) {
  const int checked = check_source(tensor, data);
  if (checked != RING2_OK) return checked;
  ring2_claim claim;
  const int claimed = ring2_claim_tensor(producer, tensor, &claim);
  if (claimed != RING2_OK) return claimed;
  if (claim.payload_bytes > 0) {
    copy_rows(*tensor, static_cast<const uint8_t *>(data), {0, static_cast<uint32_t>(tensor->dims[0])},
              static_cast<uint8_t *>(claim.payload), claim.payload_bytes);
  }
  publish(producer, claim);
  return RING2_OK;
}

int ring2_write_tensor_runs(ring2_producer *producer, const ring2_tensor *tensor, const void *data,
                            const ring2_run *runs, uint32_t run_count) {
  const int checked = check_source(tensor, data);
  if (checked != RING2_OK) return checked;
  if (runs == nullptr && run_count > 0) return ring2_set_error(RING2_E_ARGUMENT, "null runs");
  if (tensor->ndim == 0) return ring2_set_error(RING2_E_ARGUMENT, "runs of a tensor without an axis");
  ring2_tensor part = *tensor;
  part.dims[0] = 0;
  for (uint32_t i = 0; i < run_count; ++i) {
    const int64_t end = int64_t{runs[i].start} + runs[i].count;
    if (end > tensor->dims[0]) {
      return ring2_set_error(RING2_E_ARGUMENT, "run %u ends at %lld of an axis of length %lld", i,
                             static_cast<long long>(end), static_cast<long long>(tensor->dims[0]));
    }
    part.dims[0] += runs[i].count;
  }
  ring2_claim claim;
  const int claimed = ring2_claim_tensor(producer, &part, &claim);
  if (claimed != RING2_OK) return claimed;
  auto *target = static_cast<uint8_t *>(claim.payload);
  // A claim of some bytes has rows, so that this divides.
  const uint64_t row_bytes =
      claim.payload_bytes > 0 ? claim.payload_bytes / static_cast<uint64_t>(part.dims[0]) : 0;
  for (uint32_t i = 0; row_bytes > 0 && i < run_count; ++i) {
    if (runs[i].count == 0) continue;
    copy_rows(*tensor, static_cast<const uint8_t *>(data), runs[i], target, row_bytes * runs[i].count);
    target += row_bytes * runs[i].count;
  }
  publish(producer, claim);
  return RING2_OK;
}

int ring2_write_json(ring2_producer *producer, uint32_t kind, const char *json, uint64_t bytes) {
  if (producer == nullptr || json == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null producer or body");
  }
  if (kind != RING2_KIND_MODEL && kind != RING2_KIND_REQUEST && kind != RING2_KIND_REQUEST_END &&
      kind != RING2_KIND_VOCABULARY) {
    return ring2_set_error(RING2_E_ARGUMENT,
                           "kind %u; expected MODEL, REQUEST, REQUEST_END or VOCABULARY", kind);
  }
  if (bytes == 0 || bytes > RING2_BODY_BYTES_MAX) {
    return ring2_set_error(RING2_E_ARGUMENT, "a body of %llu bytes; expected 1 to %u",
                           static_cast<unsigned long long>(bytes), RING2_BODY_BYTES_MAX);
  }
  ring2_descriptor facts = {};
  facts.kind = static_cast<uint8_t>(kind);
  facts.layer = -1;
  facts.step = -1;
  facts.payload_bytes = bytes;
  facts.captured_monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  ring2_claim claim;
  const int claimed = claim_record(producer, facts, &claim);
  if (claimed != RING2_OK) return claimed;
  std::memcpy(claim.payload, json, bytes);
  publish(producer, claim);
  return RING2_OK;
}

int ring2_write_step(ring2_producer *producer, const ring2_step_header *header,
                     const ring2_step_row *rows) {
  if (producer == nullptr || header == nullptr || (rows == nullptr && header->row_count > 0)) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null producer, step or rows");
  }
  if (header->row_count > RING2_STEP_ROWS_MAX) {
    return ring2_set_error(RING2_E_ARGUMENT, "a step of %u rows; expected at most %u",
                           header->row_count, RING2_STEP_ROWS_MAX);
  }
  const uint64_t row_bytes = uint64_t{header->row_count} * sizeof(ring2_step_row);
  ring2_descriptor facts = {};
  facts.kind = RING2_KIND_STEP;
  facts.layer = -1;
  facts.step = header->step;
  facts.payload_bytes = sizeof(ring2_step_header) + row_bytes;
  facts.captured_monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  ring2_claim claim;
  const int claimed = claim_record(producer, facts, &claim);
  if (claimed != RING2_OK) return claimed;
  auto *body = static_cast<uint8_t *>(claim.payload);
  std::memcpy(body, header, sizeof(ring2_step_header));
  if (row_bytes > 0) std::memcpy(body + sizeof(ring2_step_header), rows, row_bytes);
  publish(producer, claim);
  return RING2_OK;
}

}  // extern "C"
