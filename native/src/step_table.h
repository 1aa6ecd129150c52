// The steps a consumer knows: which rows of a step's tensors belong to which request. Bodies come
// from shared memory, so they are validated and copied before anything uses them.
#ifndef RING2_STEP_TABLE_H
#define RING2_STEP_TABLE_H

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "ring2.h"

namespace ring2 {

struct Step {
  uint32_t columns = 0;
  uint8_t layout = RING2_STEP_BATCHED;
  bool extra = false;
  std::vector<ring2_step_row> rows;
};

class StepTable {
 public:
  // Steps remembered at once. Tensors follow their STEP closely, so this only has to cover the
  // steps that several producing threads have in flight.
  static constexpr size_t kStepsMax = 256;

  // Returns what is wrong with the body, or nullptr.
  const char *add(const uint8_t *body, uint64_t bytes);
  const Step *find(int64_t step) const;

 private:
  std::unordered_map<int64_t, Step> steps_;
  std::deque<int64_t> order_;
};

}  // namespace ring2
#endif
