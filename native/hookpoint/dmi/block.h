// Blocks: columns by name and type, in any order. The payload column last means that everything is
// known of a payload before its first byte, so that it goes from the socket to where it belongs.
#ifndef RING2_DMI_BLOCK_H
#define RING2_DMI_BLOCK_H

#include <string>
#include <vector>

#include "stream.h"
#include "types.h"

namespace ring2::dmi {

inline constexpr uint32_t kShapeMax = 8;

// One row of DMI's table, without its bytes.
struct Row {
  std::string model_id, request_id, act_name, dtype;
  int64_t layer = -1, shard = 0, start = 0, end = 0;
  int64_t shape[kShapeMax] = {};
  uint32_t ndim = 0;
  bool broken = false;   // a field that cannot be one: named, counted, dropped
  bool settled = false;  // logits that have waited for their step long enough
};

// What a row without its text costs where rows are kept in a vector that grows.
inline constexpr uint64_t kRowBytes = 2 * sizeof(Row);
uint64_t text_bytes(const Row &row);

enum class Dropped {
  kForeign,    // not of DMI's table
  kCrowded,    // more than a block, or all memory, may have
  kUnfinished  // their block has not come to its end
};

class RowSink {
 public:
  virtual ~RowSink() = default;
  // Reads exactly `bytes` bytes, whatever becomes of them.
  virtual void take(const Row &row, uint64_t bytes, Stream &stream) = 0;
  // Rows that take() is not called for.
  virtual void drop(Dropped why, uint64_t rows) = 0;
};

struct BlockFacts {
  uint64_t columns = 0;
  uint64_t rows = 0;
};

// `sink` null: everything is skipped. Throws Damaged at a column that cannot be read.
BlockFacts read_block(Stream &stream, uint64_t revision, RowSink *sink, Budget &budget);

}  // namespace ring2::dmi
#endif
