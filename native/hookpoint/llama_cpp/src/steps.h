// The STEP records of a ubatch: one over all its rows, one over the rows that go on to the logits where
// these are fewer, and one for each query whose attention is captured.
#ifndef RING2_LLAMA_STEPS_H
#define RING2_LLAMA_STEPS_H

#include "engine.h"

namespace ring2_llama {

// Writes the steps of the ubatch that has been matched, for what its control words want. The engine's
// lock is held.
void write_steps(Engine &engine, bool attention);

}  // namespace ring2_llama

#endif
