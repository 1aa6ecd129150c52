// The few facts of llama.cpp that the taps need, declared here and checked against the library at hand
// before they are used: the layout of a tensor and of a batch, and functions by name.
//
// Nothing of llama.cpp's headers is included. The library is found from the engine's own copy of it,
// which may have been loaded with RTLD_LOCAL.
#ifndef RING2_LLAMA_FACTS_H
#define RING2_LLAMA_FACTS_H

#include <cstddef>
#include <cstdint>

namespace ring2_llama {

struct Tensor {
  int32_t type;
  int32_t padding;
  void *buffer;
  int64_t ne[4];  // elements per axis, fastest first
  size_t nb[4];   // bytes per step of an axis
  int32_t op;
  int32_t op_params[16];
  int32_t flags;
  Tensor *src[10];
  Tensor *view_src;
  size_t view_offs;
  void *data;
  char name[64];
};

static_assert(offsetof(Tensor, op_params) == 84 && offsetof(Tensor, src) == 152 &&
                  offsetof(Tensor, data) == 248 && offsetof(Tensor, name) == 256,
              "as in every llama.cpp since 2024");

// As passed by value. `later` is what a newer version may have behind it: it is handed on unread.
struct Batch {
  int32_t n_tokens;
  int32_t *token;
  float *embd;
  int32_t *pos;
  int32_t *n_seq_id;
  int32_t **seq_id;
  int8_t *logits;
  uint64_t later[4];
};

using EvalCallback = bool (*)(Tensor *tensor, bool ask, void *user);

// Functions of ggml-base, and of libllama.
struct Facts {
  const char *(*op_desc)(const Tensor *);
  const char *(*type_name)(int32_t);
  int (*graph_n_nodes)(void *graph);
  Tensor *(*graph_node)(void *graph, int index);
  bool (*buffer_is_host)(void *buffer);
  void (*tensor_get)(const Tensor *, void *data, size_t offset, size_t bytes);

  const void *(*get_model)(const void *context);
  void *(*get_memory)(const void *context);
  int32_t (*seq_pos_max)(void *memory, int32_t sequence);
  int32_t (*n_layer)(const void *model);
  int32_t (*n_head)(const void *model);
  int32_t (*n_head_kv)(const void *model);
  int32_t (*n_embd)(const void *model);
  const void *(*get_vocab)(const void *model);
  int32_t (*vocab_n_tokens)(const void *vocab);
  const char *(*vocab_text)(const void *vocab, int32_t token);
  int32_t (*token_to_piece)(const void *vocab, int32_t token, char *text, int32_t bytes, int32_t lstrip,
                            bool special);
  int32_t (*meta)(const void *model, const char *key, char *text, size_t bytes);
  int32_t (*pooling)(const void *context);
};

// The function that `symbol` would have been without this library; NULL where there is none. `caller`:
// an address in the code that called, for engines that were loaded with RTLD_LOCAL.
void *real_function(const char *symbol, const void *caller);

// For callers that call by address (ctypes): the library that holds this function is llama.cpp. False when
// none does, or this library itself.
bool tell_library(const void *function);

// Looks everything up and checks it, once. NULL when this llama.cpp is not one that is understood: then
// one log line has said so.
const Facts *facts(const void *ggml_function, const void *llama_function);

}  // namespace ring2_llama

#endif
