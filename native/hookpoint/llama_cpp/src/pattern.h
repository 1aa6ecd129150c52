// Attention probabilities of sampled queries: gathered where the graph holds them, computed from Q, K,
// mask and scale where a fused attention hides them.
#ifndef RING2_LLAMA_PATTERN_H
#define RING2_LLAMA_PATTERN_H

#include "engine.h"

namespace ring2_llama {

// Writes one record [1, heads, 1, keys] for each query of the ubatch. What cannot be computed exactly as
// the engine does (soft caps, slopes, sinks, quantized keys, keys whose place is not known) is counted.
void write_pattern(Engine &engine, const Tap &tap);

}  // namespace ring2_llama

#endif
