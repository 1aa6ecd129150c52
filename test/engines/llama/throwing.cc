// A program with llama.cpp in its own process, whose eval callback throws in the first forward pass: prints
// what it caught, then some logits of a second pass over the same tokens in a new context, and how often its
// callback was asked. The second pass is named by TRACEPARENT where ring2's library is there.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace {

// Passed by value and larger than any version's: what is behind its end is not looked at.
struct Parameters {
  char bytes[1024];
};

struct Batch {
  int32_t n_tokens;
  int32_t *token;
  float *embd;
  int32_t *pos;
  int32_t *n_seq_id;
  int32_t **seq_id;
  int8_t *logits;
};

using Callback = bool (*)(void *tensor, bool ask, void *user);

bool throws = true;
int64_t asked = 0;

bool observe(void *, bool ask, void *) {
  if (ask) return ++asked % 7 == 0;
  if (throws) throw std::runtime_error("not this one");
  return true;
}

}  // namespace

extern "C" {
void llama_log_set(void (*log)(int, const char *, void *), void *user);
Parameters llama_model_default_params();
Parameters llama_context_default_params();
void *llama_model_load_from_file(const char *path, Parameters parameters);
void *llama_init_from_model(void *model, Parameters parameters);
int32_t llama_decode(void *context, Batch batch);
float *llama_get_logits_ith(void *context, int32_t row);
void llama_free(void *context);
void llama_model_free(void *model);

// As if the program had given its callback with the context's parameters, whose layout differs by version.
void ggml_backend_sched_set_eval_callback(void *scheduler, Callback callback, void *user) {
  using Set = void (*)(void *, Callback, void *);
  const auto next = reinterpret_cast<Set>(dlsym(RTLD_NEXT, "ggml_backend_sched_set_eval_callback"));
  (void)callback;
  next(scheduler, observe, user);
}
}

int main(int, char **words) {
  llama_log_set([](int, const char *, void *) {}, nullptr);
  void *model = llama_model_load_from_file(words[1], llama_model_default_params());
  int32_t tokens[] = {260, 265, 270, 275}, positions[] = {0, 1, 2, 3}, counts[] = {1, 1, 1, 1};
  int32_t zero = 0, *sequences[] = {&zero, &zero, &zero, &zero};
  int8_t wanted[] = {0, 0, 0, 1};
  const Batch batch{4, tokens, nullptr, positions, counts, sequences, wanted};
  void *context = llama_init_from_model(model, llama_context_default_params());
  try {
    llama_decode(context, batch);
  } catch (const std::exception &error) {
    std::printf("thrown: %s\n", error.what());
  }
  llama_free(context);

  throws = false;
  asked = 0;
  using Name = int (*)(int32_t, const char *, const char *);
  const auto name = reinterpret_cast<Name>(dlsym(RTLD_DEFAULT, "ring2_llama_request"));
  if (name != nullptr) name(0, "after", std::getenv("TRACEPARENT"));
  context = llama_init_from_model(model, llama_context_default_params());
  if (llama_decode(context, batch) != 0) return 1;
  const float *logits = llama_get_logits_ith(context, -1);
  for (int i = 0; i < 8; ++i) std::printf("%.6f ", static_cast<double>(logits[260 + i]));
  std::printf("\nasked %lld\n", static_cast<long long>(asked));
  llama_free(context);
  llama_model_free(model);
  return 0;
}
