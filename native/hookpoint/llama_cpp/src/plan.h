// Which nodes of a graph are which hooks: found once per graph, from llama.cpp's own names of tensors
// and from how they are joined. A name that is not known is no hook.
#ifndef RING2_LLAMA_PLAN_H
#define RING2_LLAMA_PLAN_H

#include <cstdint>
#include <vector>

#include "llama_facts.h"

namespace ring2_llama {

enum class TapKind {
  kValues,      // the tensor itself
  kAttention,   // probabilities that the graph holds
  kFlash        // a fused attention: probabilities are computed from its sources
};

struct Tap {
  const Tensor *node;
  uint32_t index;  // of the node in the graph
  uint32_t hook;
  int32_t layer;
  TapKind kind;
};

struct Plan {
  bool valid = false;
  uint32_t tokens = 0;
  const Tensor *token_ids = nullptr;
  const Tensor *positions = nullptr;
  const Tensor *output_ids = nullptr;  // rows that go on in the last layer; NULL: all of them
  const Tensor *cell_ids = nullptr;    // where each row's key is written
  const Tensor *cache = nullptr;       // keys of a layer, [width, cells, streams]
  bool recurrent = false;
  std::vector<Tap> taps;  // in the graph's order
};

Plan make_plan(const Facts &facts, void *graph, uint32_t hooks);

}  // namespace ring2_llama

#endif
