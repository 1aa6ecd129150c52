// The walk that measures a slice's moments and norms block by block, and shows each row to somebody
// who wants more of it while its bytes are in the cache.
#ifndef RING2_KERNELS_MOMENTS_RUN_H
#define RING2_KERNELS_MOMENTS_RUN_H

#include <algorithm>

#include "slice.h"

namespace ring2 {

struct RowMoments {
  const uint8_t *data;
  uint64_t width;
  uint64_t used;        // finite elements
  double sum_squares;   // of the used ones; infinite where float64 cannot hold it
  bool plain;           // every element was used, and their squares are ordinary float32 numbers
};

struct NobodyElse {
  void row(const RowMoments &) {}
  void publish(const RowWalk &, const SliceMoments &) {}
};

// Scores at or below it are left out; -infinity: none.
double masked_at(const SliceContext &context);

template <typename Viewer>
struct MomentsRun {
  const SliceContext &context;
  Viewer &viewer;
  double mask;
  SliceMoments moments;
  RowNorms norms;
  RowSquares squares;

  MomentsRun(const SliceContext &measured, bool folded, Viewer &interested)
      : context(measured),
        viewer(interested),
        mask(masked_at(measured)),
        norms(measured, folded) {}

  MomentsBlock block(const uint8_t *data, const BlockShape &shape) {
    MomentsBlock result;
    context.kernels->moments[context.type](data, shape, mask, &result, &squares);
    context.slice->nan_count += result.nan;
    context.slice->pos_inf_count += result.pos_inf;
    context.slice->neg_inf_count += result.neg_inf;
    moments.merge(result);
    return result;
  }

  void show_rows(const uint8_t *data, const RowWalk &walk, uint64_t rows) {
    for (uint64_t row = 0; row < rows; ++row) {
      const uint64_t used = squares.all_used ? walk.width : squares.used[row];
      viewer.row({data + row * walk.stride_bytes, walk.width, used, squares.of_row[row],
                  squares.all_used});
    }
  }

  // Rows so narrow that a block holds several.
  void narrow(const uint8_t *data, const RowWalk &walk) {
    const uint64_t row_bytes = walk.width * context.element_bytes;
    const uint64_t fitting = std::min<uint64_t>(kBlockElements / walk.width, kBlockRowsMax);
    for (uint64_t row = 0; row < walk.rows; row += fitting) {
      const uint64_t rows = std::min(fitting, walk.rows - row);
      const uint8_t *at = data + row * walk.stride_bytes;
      if (walk.stride_bytes == row_bytes) {
        add_to_crc(context, at, rows * row_bytes);
      } else {
        for (uint64_t i = 0; i < rows; ++i) {
          add_to_crc(context, at + i * walk.stride_bytes, row_bytes);
        }
      }
      block(at, {walk.stride_bytes, rows, walk.width});
      if (squares.all_used) {
        norms.add_whole(squares.of_row, walk.width, rows);
      } else {
        context.slice->skipped_rows += norms.add(squares.of_row, squares.used, rows);
      }
      show_rows(at, walk, rows);
    }
  }

  void wide(const uint8_t *data, const RowWalk &walk) {
    for (uint64_t row = 0; row < walk.rows; ++row) {
      RowMoments whole = {data + row * walk.stride_bytes, walk.width, 0, 0, true};
      for (uint64_t done = 0; done < walk.width; done += kBlockElements) {
        const uint64_t count = std::min<uint64_t>(kBlockElements, walk.width - done);
        const uint8_t *part = whole.data + done * context.element_bytes;
        add_to_crc(context, part, count * context.element_bytes);
        whole.used += block(part, {count * context.element_bytes, 1, count}).used;
        whole.sum_squares += squares.of_row[0];
        whole.plain = whole.plain && squares.all_used;
      }
      const uint32_t used = static_cast<uint32_t>(whole.used);
      context.slice->skipped_rows += norms.add(&whole.sum_squares, &used, 1);
      viewer.row(whole);
    }
  }

  void run(const RowWalk &walk) {
    for (uint64_t outer = 0; outer < walk.outer_count(); ++outer) {
      const uint8_t *data = walk.outer(context.data, outer);
      walk.width > kBlockElements ? wide(data, walk) : narrow(data, walk);
    }
  }
};

}  // namespace ring2
#endif
