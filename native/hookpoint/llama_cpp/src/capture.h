// What happens in one ubatch: before its graph runs, at each node that is asked for, and after it.
#ifndef RING2_LLAMA_CAPTURE_H
#define RING2_LLAMA_CAPTURE_H

#include "engine.h"

namespace ring2_llama {

// The user's own callback, which goes on being called as if nothing were there before it.
struct Chain {
  Engine *engine;
  EvalCallback user;
  void *user_data;
  bool user_asked = false;
};

// Prepares the ubatch; false when nothing of this graph is to be captured. The graph's inputs are set.
bool begin_ubatch(Engine &engine, void *graph);

// The eval callback, `user` being a Chain.
bool observe(Tensor *tensor, bool ask, void *user);

}  // namespace ring2_llama

#endif
