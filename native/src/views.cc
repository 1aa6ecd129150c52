// What a page shows of stored tensors: norms of rows, the softmax of rows of logits, and the most
// probable tokens of one row. On memory that was read back from the store, so nothing here folds,
// remembers or checks sums; the statistics at capture are measure.cc's.
#include "views.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "error.h"
#include "kernels/elements.h"
#include "kernels/row_softmax.h"
#include "measure.h"
#include "tensor_shape.h"

namespace ring2 {

int view_type(const void *data, uint64_t data_bytes, uint32_t dtype, const uint64_t *dims,
              uint32_t axes, ElementType *type) {
  if (!element_type_of(dtype, type)) {
    return ring2_set_error(RING2_E_ARGUMENT, "dtype %u; expected a floating-point ring2_dtype", dtype);
  }
  uint64_t bytes = 0;
  if (!dense_bytes(dims, axes, dtype, &bytes) || bytes != data_bytes ||
      (data == nullptr && bytes > 0)) {
    return ring2_set_error(RING2_E_ARGUMENT, "%llu bytes that are not what the axes say",
                           static_cast<unsigned long long>(data_bytes));
  }
  return RING2_OK;
}

namespace {

double norm_of(const Kernels &kernels, ElementType type, const uint8_t *row, uint64_t width,
               uint64_t element_bytes) {
  double squares = 0;
  uint64_t used = 0;
  for (uint64_t done = 0; done < width; done += kBlockElements) {
    const uint64_t count = std::min<uint64_t>(kBlockElements, width - done);
    const BlockShape shape = {count * element_bytes, 1, count};
    MomentsBlock block;
    RowSquares part;
    kernels.moments[type](row + done * element_bytes, shape,
                          -std::numeric_limits<double>::infinity(), &block, &part);
    squares += part.of_row[0];
    used += block.used;
  }
  return used == 0 || !std::isfinite(squares) ? NAN : std::sqrt(squares);
}

// False when the row has no softmax: a NaN or +Inf in it, or nothing finite.
bool softmax_of(const Kernels &kernels, ElementType type, const uint8_t *row, uint64_t width,
                uint64_t element_bytes, RowSoftmax *softmax) {
  for (uint64_t done = 0; done < width; done += kBlockElements) {
    const uint64_t count = std::min<uint64_t>(kBlockElements, width - done);
    LogitsBlock block;
    kernels.logits[type](row + done * element_bytes, count, softmax->maximum, &block);
    if (block.moments.nan + block.moments.pos_inf > 0) return false;
    softmax->merge(block, done);
  }
  return softmax->weight > 0;
}

void softmax_row(const Kernels &kernels, ElementType type, const uint8_t *row, uint64_t width,
                 uint64_t element_bytes, int64_t label, ring2_view_softmax *out) {
  *out = {NAN, NAN, NAN, NAN};
  RowSoftmax softmax;
  if (!softmax_of(kernels, type, row, width, element_bytes, &softmax)) return;
  out->entropy = softmax.entropy();
  out->top1_probability = 1 / softmax.weight;
  if (std::isfinite(softmax.second)) out->margin = softmax.maximum - softmax.second;
  if (label < 0 || static_cast<uint64_t>(label) >= width) return;
  const double logit = element_value(type, row + static_cast<uint64_t>(label) * element_bytes);
  const double surprisal = softmax.log_sum_exp() - logit;
  // Rounding of a probability of almost 1 is no negative surprisal; probability 0 has none.
  if (std::isfinite(surprisal)) out->surprisal = std::fmax(surprisal, 0.0);
}

struct Candidate {
  double logit;
  uint32_t id;
};

// Higher logits first, and of equal ones the lower id.
bool before(const Candidate &left, const Candidate &right) {
  return left.logit > right.logit || (left.logit == right.logit && left.id < right.id);
}

}  // namespace
}  // namespace ring2

extern "C" RING2_API int ring2_view_norms(const void *data, uint64_t data_bytes, uint32_t dtype,
                                          uint64_t rows, uint64_t width, double *norms) {
  ring2::ElementType type;
  const uint64_t dims[] = {rows, width};
  const int checked = ring2::view_type(data, data_bytes, dtype, dims, 2, &type);
  if (checked != RING2_OK) return checked;
  const uint64_t element_bytes = ring2::dtype_bytes(dtype);
  const uint8_t *row = static_cast<const uint8_t *>(data);
  for (uint64_t index = 0; index < rows; ++index, row += width * element_bytes) {
    norms[index] = ring2::norm_of(ring2::selected_kernels(), type, row, width, element_bytes);
  }
  return RING2_OK;
}

extern "C" RING2_API int ring2_view_logits(const void *data, uint64_t data_bytes, uint32_t dtype,
                                           uint64_t rows, uint64_t width, const double *labels,
                                           ring2_view_softmax *out) {
  ring2::ElementType type;
  const uint64_t dims[] = {rows, width};
  const int checked = ring2::view_type(data, data_bytes, dtype, dims, 2, &type);
  if (checked != RING2_OK) return checked;
  const uint64_t element_bytes = ring2::dtype_bytes(dtype);
  const uint8_t *row = static_cast<const uint8_t *>(data);
  for (uint64_t index = 0; index < rows; ++index, row += width * element_bytes) {
    ring2::softmax_row(ring2::selected_kernels(), type, row, width, element_bytes,
                       static_cast<int64_t>(labels[index]), &out[index]);
  }
  return RING2_OK;
}

extern "C" RING2_API int ring2_view_top(const void *data, uint64_t data_bytes, uint32_t dtype,
                                        uint64_t width, int64_t label, uint64_t count,
                                        ring2_view_token *out, ring2_view_top_facts *facts) {
  using ring2::Candidate;
  ring2::ElementType type;
  const int checked = ring2::view_type(data, data_bytes, dtype, &width, 1, &type);
  if (checked != RING2_OK) return checked;
  if (count > width || width > UINT32_MAX) {
    return ring2_set_error(RING2_E_ARGUMENT, "%llu of %llu logits",
                           static_cast<unsigned long long>(count),
                           static_cast<unsigned long long>(width));
  }
  const uint8_t *row = static_cast<const uint8_t *>(data);
  const uint64_t element_bytes = ring2::dtype_bytes(dtype);
  *facts = {NAN, -1};
  ring2::RowSoftmax softmax;
  if (!ring2::softmax_of(ring2::selected_kernels(), type, row, width, element_bytes, &softmax)) {
    return RING2_OK;
  }
  facts->entropy = softmax.entropy();
  std::vector<Candidate> all(width);
  for (uint32_t id = 0; id < width; ++id) {
    all[id] = {ring2::element_value(type, row + id * element_bytes), id};
  }
  if (label >= 0 && static_cast<uint64_t>(label) < width) {
    const Candidate chosen = all[static_cast<uint64_t>(label)];
    facts->rank = std::count_if(all.begin(), all.end(), [&](const Candidate &one) {
      return ring2::before(one, chosen);
    });
  }
  const auto end = all.begin() + static_cast<int64_t>(count);
  std::partial_sort(all.begin(), end, all.end(), ring2::before);
  const double log_sum_exp = softmax.log_sum_exp();
  for (uint64_t index = 0; index < count; ++index) {
    const double logit = all[index].logit;
    out[index] = {static_cast<double>(all[index].id), std::exp(logit - log_sum_exp), logit};
  }
  return RING2_OK;
}
