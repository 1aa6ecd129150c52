// How evenly the tokens of a mixture of experts fall on them, over windows of many tokens of all
// requests.
#ifndef RING2_TRACK_EXPERTS_H
#define RING2_TRACK_EXPERTS_H

#include <cstdint>
#include <vector>

#include "kernels/slice.h"

namespace ring2 {

constexpr uint32_t kExpertsMax = 4096;
constexpr uint32_t kChoicesMax = 64;  // experts of one token
// Choices that a window expects for each expert. With fewer, evenly routed tokens look uneven.
constexpr uint64_t kChoicesPerExpert = 1000;

// Of one layer in one phase.
struct ExpertWindow {
  std::vector<uint64_t> chosen;  // by expert
  uint64_t total = 0;            // choices
};

struct ExpertLayer {
  uint32_t experts = 0;  // 0: not known
  ExpertWindow windows[2];  // by phase
};

struct ExpertLoads {
  std::vector<ExpertLayer> layers;
};

struct LoadStatistics {
  double max_violation;  // max / mean - 1
  double variation;      // standard deviation / mean, of all experts
  double entropy;        // of the shares, over the logarithm of their number; NaN for one expert
  double dead_share;     // of experts without a choice
};

// counts: at least one is not 0.
LoadStatistics load_statistics(const std::vector<uint64_t> &counts);

// A slice of router_logits (learns the number of experts) or topk_ids; others: nothing.
void track_experts(const SliceContext &context, ExpertLoads *loads);

}  // namespace ring2
#endif
