// Where in the key cache the keys of each sequence's positions lie, learned from the graph's own indices.
// Whatever moves cells otherwise makes it unknown, and an unknown key is never guessed.
#ifndef RING2_LLAMA_CELLS_H
#define RING2_LLAMA_CELLS_H

#include "engine.h"

namespace ring2_llama {

// Learns from the ubatch that is about to run.
void learn_cells(Engine &engine);
void forget_cells(Engine &engine);
// Cells, inside their stream, of the positions 0 to `position`; empty when one of them is not known.
std::vector<int64_t> cells_of(const Engine &engine, int32_t sequence, int32_t position);

}  // namespace ring2_llama

#endif
