// The inner loops of the statistics, as a table of plain functions for each instruction set.
//
// A kernel sees at most kBlockElements elements at a time, so that what it reads twice comes from
// the L1 cache: memory is passed over once. Kernels never read outside the elements they are given,
// take any alignment, accumulate float32 lanes inside a block and hand float64 to the caller, who
// merges the blocks. They keep no state and know no tensors,
// hooks or slices.
//
// Every flavour is the same source (vector.h and *_block.h) at another vector width. A flavour's
// file is compiled with its instruction set's flags and therefore includes nothing with inline
// functions of external linkage: the linker could keep a copy that this machine cannot run.
#ifndef RING2_KERNELS_KERNELS_H
#define RING2_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

namespace ring2 {

constexpr size_t kBlockElements = 4096;
constexpr size_t kBlockRowsMax = 512;

enum ElementType { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2, kFloat64 = 3, kElementTypes = 4 };

struct MomentsBlock {
  uint64_t used;  // finite elements that are not masked
  uint64_t nan, pos_inf, neg_inf;
  double sum;
  double centred;  // sum of squared distances from this block's mean
  double abs_max;  // 0 when nothing was used
};

// Sums of squares of the rows of a MomentsBlock, or of the part of a row that the block holds.
struct RowSquares {
  double of_row[kBlockRowsMax];
  bool all_used;                 // every element of every row was used, and used[] is not set
  uint32_t used[kBlockRowsMax];  // how many elements of the row were
};

// Part of one row of logits. Natural logarithms; -Inf entries have probability 0.
struct LogitsBlock {
  MomentsBlock moments;
  double sum_squares;
  double maximum;      // -infinity when nothing is finite
  double second;       // largest value besides one `maximum`; set when maximum > running_maximum
  double weight;       // Z = sum of e^(l - maximum)
  double weighted;     // S = sum of (l - maximum) e^(l - maximum)
  double squared;      // Q = sum of (l - maximum)^2 e^(l - maximum)
  uint32_t top_index;  // first element equal to `maximum`; likewise
};

// One row of an attention pattern. Keys 1 and up are summed apart from key 0, so that leaving the
// sink out cancels nothing.
struct AttentionRow {
  double first;          // p of key 0
  double rest;           // sum of p, keys >= 1
  double rest_p_log_p;   // sum of p ln p, keys >= 1, with 0 ln 0 = 0
  uint32_t nan, pos_inf, neg_inf;
  uint32_t negative;     // elements below 0 (not -0): no probability
};

// Masses at chosen keys of the row of a query that sees itself: keys 0 to `position`. Keys before
// the first count as none.
struct AttentionPlaces {
  double first_four;  // keys 0 to 3
  double previous;    // key position - 1
  double self;        // key position
  double recent;      // the last kRecentKeys keys
};
constexpr size_t kRecentKeys = 16;
constexpr size_t kColumnsStep = 32;

// Two rows: their product, and the squares of each. NaN or infinite when an element is.
struct PairSums {
  double dot, first, second;
};

constexpr size_t kGramRows = 64;
constexpr size_t kGramColumns = 128;
// Sums of rows are kept in a kernel's own order of elements, in arrays of a multiple of this length.
constexpr size_t kRowSumsMultiple = 32;

// G: the products of all pairs of rows, after the mean row was taken off every one.
struct GramSums {
  double trace;
  double squares;  // of every element of G
};

// Sums over a row of the second and fourth powers of scale * x - center.
struct CentralMoments {
  double second, fourth;
};
constexpr size_t kPivotsMax = 5;

struct BlockShape {
  size_t stride_bytes;  // from one row to the next
  size_t rows;          // at most kBlockRowsMax
  size_t width;         // elements of a row; rows * width <= kBlockElements
};

struct Kernels {
  const char *name;
  // Elements at or below mask_at are left out and not counted (pass -infinity: none; -Inf is then
  // left out and counted).
  void (*moments[kElementTypes])(const uint8_t *data, const BlockShape &shape, double mask_at,
                                 MomentsBlock *block, RowSquares *squares);
  // count <= kBlockElements; running_maximum: of the row's earlier blocks. With any NaN or +Inf
  // only moments and sum_squares are meaningful.
  void (*logits[kElementTypes])(const uint8_t *data, size_t count, double running_maximum,
                                LogitsBlock *block);
  // One row of any width >= 1; keys from `visible` on are expected to be 0 and then cost less.
  void (*attention[kElementTypes])(const uint8_t *data, size_t keys, size_t visible,
                                   AttentionRow *row);
  // Keys 0 to `position` of one row.
  void (*attention_places[kElementTypes])(const uint8_t *row, size_t position,
                                          AttentionPlaces *places);
  // Sum of `count` elements, all of them finite.
  double (*sum[kElementTypes])(const uint8_t *data, size_t count);
  // Adds the first `count` of a row's `width` elements, all of them finite, to as many columns.
  // There are kColumnsStep columns, or a multiple; those past `count` keep their values.
  void (*add_columns[kElementTypes])(const uint8_t *row, size_t width, size_t count,
                                     float *columns);
  // A row of any width whose scaled elements and their fourth powers are ordinary numbers.
  void (*central[kElementTypes])(const uint8_t *row, size_t width, double scale, double center,
                                 CentralMoments *moments);
  // Adds to above[i] how many elements have a code above pivots[i] (elements.h), NaN and infinities
  // included. 1, 2 or kPivotsMax pivots, finite.
  void (*count_above[kElementTypes])(const uint8_t *data, size_t count, const uint64_t *pivots,
                                     size_t pivot_count, uint64_t *above);
  // Adds the squares of `count` elements, which fit in float32, to as many columns.
  void (*add_squares[kElementTypes])(const uint8_t *row, size_t count, float *columns);
  // Two rows of any width.
  void (*pair[kElementTypes])(const uint8_t *first, const uint8_t *second, size_t width,
                              PairSums *sums);
  // Adds rows to `sum`, and each times its scale to `scaled`. All elements must be finite.
  void (*add_rows[kElementTypes])(const uint8_t *const *rows, const float *scales, size_t count,
                                  size_t width, float *sum, float *scaled);
  // Squares of the distances of a row from `center`, in the order of add_rows' sums.
  double (*centred[kElementTypes])(const uint8_t *row, size_t width, const float *center);
  // count <= kGramRows. NaN when an element is not finite.
  void (*gram[kElementTypes])(const uint8_t *const *rows, size_t count, size_t width,
                              GramSums *sums);
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// Plain float64 loops, shared by every flavour.
void moments_float64(const uint8_t *data, const BlockShape &shape, double mask_at,
                     MomentsBlock *block, RowSquares *squares);
void logits_float64(const uint8_t *data, size_t count, double running_maximum, LogitsBlock *block);
void attention_float64(const uint8_t *data, size_t keys, size_t visible, AttentionRow *row);
void attention_places_float64(const uint8_t *row, size_t position, AttentionPlaces *places);
double sum_float64(const uint8_t *data, size_t count);
void add_columns_float64(const uint8_t *row, size_t width, size_t count, float *columns);
void central_float64(const uint8_t *row, size_t width, double scale, double center,
                     CentralMoments *moments);
void count_above_float64(const uint8_t *data, size_t count, const uint64_t *pivots,
                         size_t pivot_count, uint64_t *above);
void add_squares_float64(const uint8_t *row, size_t count, float *columns);
void pair_float64(const uint8_t *first, const uint8_t *second, size_t width, PairSums *sums);
void add_rows_float64(const uint8_t *const *rows, const float *scales, size_t count, size_t width,
                      float *sum, float *scaled);
double centred_float64(const uint8_t *row, size_t width, const float *center);
void gram_float64(const uint8_t *const *rows, size_t count, size_t width, GramSums *sums);

// Whether this processor and operating system can run a flavour: portable, AVX2 or AVX-512.
bool machine_runs(const Kernels &kernels);

// The best flavour this processor and operating system can run, lowered by RING2_ISA. Chosen once.
const Kernels &selected_kernels();

}  // namespace ring2
#endif
