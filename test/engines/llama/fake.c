/* A llama.cpp of an unknown version, for tests: it has the functions that are interposed, and its tensors
 * are laid out differently (FAKE_LAYOUT), or a function is not there. Built as a library and, with
 * FAKE_PROGRAM, as the program that uses it. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct batch {
  int32_t n_tokens;
  int32_t *token;
  float *embd;
  int32_t *pos;
  int32_t *n_seq_id;
  int32_t **seq_id;
  int8_t *logits;
};

void ggml_backend_sched_set_eval_callback(void *scheduler, void *callback, void *user);
int ggml_backend_sched_graph_compute_async(void *scheduler, void *graph);
int32_t llama_decode(void *context, struct batch batch);

#ifdef FAKE_PROGRAM
int main(void) {
  int32_t token = 1, position = 0, one = 1, sequence = 0, *sequences = &sequence;
  int8_t logits = 1;
  const struct batch batch = {1, &token, NULL, &position, &one, &sequences, &logits};
  ggml_backend_sched_set_eval_callback(NULL, NULL, NULL);
  int32_t sum = 0;
  for (int i = 0; i < 3; ++i) sum += llama_decode(&token, batch);
  printf("%d\n", sum);
  return 0;
}
#else
void ggml_backend_sched_set_eval_callback(void *scheduler, void *callback, void *user) {
  (void)scheduler, (void)callback, (void)user;
}
int ggml_backend_sched_graph_compute_async(void *scheduler, void *graph) {
  (void)scheduler, (void)graph;
  return 7;
}
int32_t llama_decode(void *context, struct batch batch) {
  (void)context;
  return ggml_backend_sched_graph_compute_async(NULL, NULL) * batch.n_tokens;
}
#ifdef FAKE_LAYOUT
struct parameters {
  size_t bytes;
  void *memory;
  bool no_alloc;
};
static char memory[4][1024];
static int used;
static float numbers[15];
static void *next(void) { return memory[used++ % 4]; }

const char *ggml_op_desc(const void *t) { return (void)t, "NONE"; }
const char *ggml_type_name(int32_t type) { return (void)type, "f32"; }
int ggml_graph_n_nodes(void *g) { return (void)g, 0; }
void *ggml_graph_node(void *g, int i) { return (void)g, (void)i, NULL; }
bool ggml_backend_buffer_is_host(void *b) { return (void)b, true; }
void ggml_backend_tensor_get(const void *t, void *d, size_t o, size_t n) { (void)t, (void)d, (void)o, (void)n; }
void *ggml_init(struct parameters p) { return (void)p, memory; }
void ggml_free(void *c) { (void)c; }
size_t ggml_tensor_overhead(void) { return 1024; }
void *ggml_new_tensor_2d(void *c, int32_t t, int64_t a, int64_t b) {
  return (void)c, (void)t, (void)a, (void)b, next();
}
void *ggml_view_1d(void *c, void *t, int64_t n, size_t o) { return (void)c, (void)t, (void)n, (void)o, next(); }
void *ggml_scale(void *c, void *t, float f) { return (void)c, (void)t, (void)f, next(); }
void *ggml_add(void *c, void *a, void *b) { return (void)c, (void)a, (void)b, next(); }
void *ggml_set_name(void *t, const char *name) { return strcpy((char *)t + 512, name), t; }
const char *ggml_get_name(const void *t) { return (const char *)t + 512; }
void *ggml_get_data(const void *t) { return (void)t, numbers; }
size_t ggml_nbytes(const void *t) { return (void)t, 60; }
int64_t ggml_nelements(const void *t) { return (void)t, 15; }
#define RING2_FAKE(name) \
  int name(void) { return 0; }
RING2_FAKE(llama_get_model)
RING2_FAKE(llama_get_memory)
RING2_FAKE(llama_memory_seq_pos_max)
RING2_FAKE(llama_model_n_layer)
RING2_FAKE(llama_model_n_head)
RING2_FAKE(llama_model_n_head_kv)
RING2_FAKE(llama_model_n_embd)
RING2_FAKE(llama_model_get_vocab)
RING2_FAKE(llama_vocab_n_tokens)
RING2_FAKE(llama_vocab_get_text)
RING2_FAKE(llama_token_to_piece)
RING2_FAKE(llama_model_meta_val_str)
RING2_FAKE(llama_pooling_type)
RING2_FAKE(llama_batch_init)
RING2_FAKE(llama_batch_free)
#endif
#endif
