// What is remembered of a request's tokens and logits: surprisal, repetition, loops.
#ifndef RING2_TRACK_SEQUENCE_H
#define RING2_TRACK_SEQUENCE_H

#include <cstdint>
#include <vector>

#include "track_place.h"

namespace ring2 {

constexpr uint32_t kLoopPeriodMax = 64;
constexpr uint32_t kLoopRepetitions = 3;
// Three equal tokens are an ellipsis, a rule or padding, and no loop: shorter periods repeat
// longer.
constexpr uint32_t kLoopTokensMin = 8;
// Distinct sequences of four tokens of a request. A request with more is no longer known whole, and
// has no repetition. A loop adds none, so one that goes on for ever keeps its value.
constexpr uint32_t kDistinctGramsMax = 65536;

// Hashes, at most half full, linear probing; 0 is an empty slot.
class HashSet {
 public:
  uint64_t size() const { return size_; }
  uint64_t bytes() const { return slots_.size() * sizeof(uint64_t); }
  bool full() const { return 2 * (size_ + 1) > slots_.size(); }
  uint64_t grown_bytes() const;
  void grow();
  // hash != 0; there is room.
  void add(uint64_t hash);
  void clear() { *this = HashSet(); }

 private:
  std::vector<uint64_t> slots_;
  uint64_t size_ = 0;
};

// The tokens that a request has generated, in order and without a gap.
struct TokenHistory {
  int64_t step = -1;          // of the last slice
  int32_t next = -1;          // position that goes on; -1: nothing yet
  uint64_t tokens = 0;
  bool overflowed = false;    // not every sequence of four is in `grams`
  uint64_t last[kLoopPeriodMax] = {};        // by number of the token, modulo
  uint32_t unchanged[kLoopPeriodMax] = {};   // [p-1]: tokens in a row that equal the one p before
  HashSet grams;

  // The smallest period that ends the sequence kLoopRepetitions times and kLoopTokensMin tokens
  // long; 0: none.
  uint32_t loop_period() const;
};

// The last row of logits, until the token it predicts is known.
struct PendingLogits {
  Place row;
  double log_sum_exp = 0;
};

}  // namespace ring2
#endif
