// Attention patterns as a page shows them: the mean over heads as float32, and tiles of it in which
// a cell is the largest probability that it covers.
#include <algorithm>
#include <cmath>
#include <vector>

#include "error.h"
#include "kernels/elements.h"
#include "tensor_shape.h"
#include "views.h"

namespace ring2 {
namespace {

void add_row(ElementType type, const uint8_t *data, uint64_t keys, float scale, float *sum) {
  if (type == kFloat32) {
    for (uint64_t key = 0; key < keys; ++key) sum[key] += scale * read_as<float>(data + key * 4);
  } else if (type == kBfloat16) {
    for (uint64_t key = 0; key < keys; ++key) {
      sum[key] += scale * bits_as<float>(uint32_t{read_as<uint16_t>(data + key * 2)} << 16);
    }
  } else {
    const uint64_t bytes = type == kFloat64 ? 8 : 2;
    for (uint64_t key = 0; key < keys; ++key) {
      // NaN and infinities of these types have codes and no values; both are no probability.
      const uint8_t *at = data + key * bytes;
      const bool finite = element_code(type, at) < infinity_code(type);
      sum[key] += finite ? scale * static_cast<float>(element_value(type, at)) : NAN;
    }
  }
}

struct Tile {
  const ring2_view_tile &what;
  const float *matrix;
  float *cells;
  double *key_mass;
  double *lookback;
  uint64_t columns;
  double first_key = 0;
  uint64_t rows_seen = 0;
  std::vector<double> prompt, all;  // masses of the queries of each row of cells

  void row(uint64_t query) {
    const float *p = matrix + query * what.keys;
    const uint64_t position = what.first_query + query;
    // A single NaN is a damaged probability; a query that is not stored is NaN throughout.
    if (std::isnan(p[0]) && std::isnan(p[what.keys - 1])) return;
    ++rows_seen;
    if (std::isfinite(p[0])) first_key += static_cast<double>(p[0]);
    const uint64_t cell_row = (query - what.query_start) / what.cell;
    float *cells_row = cells + cell_row * columns;
    for (uint64_t key = what.key_start; key < what.key_end; ++key) {
      // A masked key is no key of probability 0; one that is not 0 is shown wherever it lies.
      if (!std::isfinite(p[key]) || (p[key] == 0 && key > position)) continue;
      const uint64_t column = (key - what.key_start) / what.cell;
      cells_row[column] = std::fmax(cells_row[column], p[key]);
      key_mass[column] += static_cast<double>(p[key]);
    }
    if (what.prompt < 0 || position < static_cast<uint64_t>(what.prompt)) return;
    // Where fewer keys are stored than there were tokens, nobody knows which token a key is.
    if (position >= what.keys) return;
    for (uint64_t key = 0; key <= position; ++key) {
      const double mass = std::isfinite(p[key]) ? static_cast<double>(p[key]) : 0;
      all[cell_row] += mass;
      if (key < static_cast<uint64_t>(what.prompt)) prompt[cell_row] += mass;
    }
  }
};

bool tile_is_valid(const ring2_view_tile &what, uint64_t floats) {
  uint64_t product = 0;
  return !__builtin_mul_overflow(what.queries, what.keys, &product) && product == floats &&
         what.keys > 0 && what.cell > 0 && what.query_start < what.query_end &&
         what.query_end <= what.queries && what.key_start < what.key_end &&
         what.key_end <= what.keys;
}

}  // namespace
}  // namespace ring2

extern "C" RING2_API int ring2_view_pattern_add(const void *data, uint64_t data_bytes,
                                                uint32_t dtype, uint64_t heads, uint64_t queries,
                                                uint64_t keys, float scale, float *sums) {
  ring2::ElementType type;
  const uint64_t dims[] = {heads, queries, keys};
  const int checked = ring2::view_type(data, data_bytes, dtype, dims, 3, &type);
  if (checked != RING2_OK) return checked;
  const uint64_t row_bytes = keys * ring2::dtype_bytes(dtype);
  const uint8_t *at = static_cast<const uint8_t *>(data);
  for (uint64_t head = 0; head < heads; ++head) {
    for (uint64_t query = 0; query < queries; ++query, at += row_bytes) {
      ring2::add_row(type, at, keys, scale, sums + query * keys);
    }
  }
  return RING2_OK;
}

extern "C" RING2_API int ring2_view_pattern_tile(const float *matrix, uint64_t floats,
                                                 const ring2_view_tile *what, float *cells,
                                                 double *key_mass, double *lookback,
                                                 double *first_key) {
  if (matrix == nullptr || what == nullptr || !ring2::tile_is_valid(*what, floats)) {
    return ring2_set_error(RING2_E_ARGUMENT, "a tile that does not fit %llu elements",
                           static_cast<unsigned long long>(floats));
  }
  const uint64_t rows = (what->query_end - what->query_start + what->cell - 1) / what->cell;
  const uint64_t columns = (what->key_end - what->key_start + what->cell - 1) / what->cell;
  std::fill(cells, cells + rows * columns, NAN);
  std::fill(key_mass, key_mass + columns, 0.0);
  ring2::Tile tile = {*what,   matrix, cells, key_mass, lookback,
                      columns, 0,      0,     std::vector<double>(rows), std::vector<double>(rows)};
  for (uint64_t query = what->query_start; query < what->query_end; ++query) tile.row(query);
  const double seen = static_cast<double>(tile.rows_seen);
  for (uint64_t column = 0; column < columns; ++column) key_mass[column] /= seen;
  *first_key = tile.first_key / seen;
  for (uint64_t row = 0; row < rows; ++row) {
    lookback[row] = tile.all[row] > 0 ? tile.prompt[row] / tile.all[row] : NAN;
  }
  return RING2_OK;
}
