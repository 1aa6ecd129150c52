#include "llama_facts.h"

#include <dlfcn.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <string>

#include "options.h"

namespace ring2_llama {

namespace {

// The library that holds an address, and those it was linked with.
void *library_of(const void *address) {
  Dl_info info{};
  if (address == nullptr || dladdr(address, &info) == 0 || info.dli_fname == nullptr) return nullptr;
  return dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
}

void *own_library() { return library_of(reinterpret_cast<const void *>(&library_of)); }

// What a caller has told, whose calls come from neither llama.cpp nor a program linked with it.
std::atomic<void *> told_library{nullptr};

struct Lookup {
  void *library;
  std::string missing;

  template <typename Function>
  void operator()(const char *name, Function *out) {
    void *found = library == nullptr ? nullptr : dlsym(library, name);
    if (found == nullptr && missing.size() < 200) missing.append(missing.empty() ? "" : ", ").append(name);
    *out = reinterpret_cast<Function>(found);
  }
};

struct InitParameters {
  size_t bytes;
  void *memory;
  bool no_alloc;
};

// Functions that are needed for nothing but the check.
struct Makers {
  void *(*init)(InitParameters);
  void (*free)(void *);
  size_t (*overhead)();
  Tensor *(*new_2d)(void *, int32_t type, int64_t, int64_t);
  Tensor *(*view_1d)(void *, Tensor *, int64_t, size_t offset);
  Tensor *(*scale)(void *, Tensor *, float);
  Tensor *(*add)(void *, Tensor *, Tensor *);
  Tensor *(*set_name)(Tensor *, const char *);
  const char *(*get_name)(const Tensor *);
  void *(*get_data)(const Tensor *);
  size_t (*nbytes)(const Tensor *);
  int64_t (*nelements)(const Tensor *);
};

// Makes a few tensors with the library itself and looks whether the fields are where they are read.
const char *wrong_field(const Facts &facts, const Makers &make, void *context) {
  Tensor *matrix = make.set_name(make.new_2d(context, 0, 3, 5), "ring2");
  if (make.get_name(matrix) != matrix->name) return "name";
  if (make.get_data(matrix) != matrix->data || matrix->data == nullptr) return "data";
  if (matrix->type != 0 || std::strcmp(facts.type_name(matrix->type), "f32") != 0) return "type";
  if (matrix->ne[0] != 3 || matrix->ne[1] != 5 || matrix->ne[2] != 1) return "ne";
  if (make.nelements(matrix) != 15 || make.nbytes(matrix) != 60) return "ne";
  if (matrix->nb[0] != 4 || matrix->nb[1] != 12 || matrix->nb[2] != 60) return "nb";
  Tensor *view = make.view_1d(context, matrix, 4, 8);
  if (view->view_src != matrix || view->view_offs != 8) return "view_src";
  if (std::strcmp(facts.op_desc(view), "VIEW") != 0) return "op";
  Tensor *sum = make.add(context, matrix, matrix);
  if (sum->src[0] != matrix || sum->src[1] != matrix || sum->src[2] != nullptr) return "src";
  if (std::strcmp(facts.op_desc(sum), "ADD") != 0 || sum->op == view->op) return "op";
  Tensor *scaled = make.scale(context, matrix, 0.5F);
  float factor = 0;
  std::memcpy(&factor, scaled->op_params, sizeof factor);
  return factor == 0.5F ? nullptr : "op_params";
}

void look_up_ggml(Lookup &find, Facts *facts, Makers *make) {
  find("ggml_op_desc", &facts->op_desc);
  find("ggml_type_name", &facts->type_name);
  find("ggml_graph_n_nodes", &facts->graph_n_nodes);
  find("ggml_graph_node", &facts->graph_node);
  find("ggml_backend_buffer_is_host", &facts->buffer_is_host);
  find("ggml_backend_tensor_get", &facts->tensor_get);
  find("ggml_init", &make->init);
  find("ggml_free", &make->free);
  find("ggml_tensor_overhead", &make->overhead);
  find("ggml_new_tensor_2d", &make->new_2d);
  find("ggml_view_1d", &make->view_1d);
  find("ggml_scale", &make->scale);
  find("ggml_add", &make->add);
  find("ggml_set_name", &make->set_name);
  find("ggml_get_name", &make->get_name);
  find("ggml_get_data", &make->get_data);
  find("ggml_nbytes", &make->nbytes);
  find("ggml_nelements", &make->nelements);
}

struct BatchBytes {
  Batch batch;
  uint64_t slack[16];
};

struct LlamaMakers {
  BatchBytes (*batch_init)(int32_t tokens, int32_t embd, int32_t sequences);
  void (*batch_free)(Batch);
};

void look_up_llama(Lookup &find, Facts *facts, LlamaMakers *make) {
  find("llama_get_model", &facts->get_model);
  find("llama_get_memory", &facts->get_memory);
  find("llama_memory_seq_pos_max", &facts->seq_pos_max);
  find("llama_model_n_layer", &facts->n_layer);
  find("llama_model_n_head", &facts->n_head);
  find("llama_model_n_head_kv", &facts->n_head_kv);
  find("llama_model_n_embd", &facts->n_embd);
  find("llama_model_get_vocab", &facts->get_vocab);
  find("llama_vocab_n_tokens", &facts->vocab_n_tokens);
  find("llama_vocab_get_text", &facts->vocab_text);
  find("llama_token_to_piece", &facts->token_to_piece);
  find("llama_model_meta_val_str", &facts->meta);
  find("llama_pooling_type", &facts->pooling);
  find("llama_batch_init", &make->batch_init);
  find("llama_batch_free", &make->batch_free);
}

bool batch_as_expected(const LlamaMakers &make) {
  const Batch batch = make.batch_init(3, 0, 1).batch;
  const bool right = batch.n_tokens == 0 && batch.token != nullptr && batch.embd == nullptr &&
                     batch.pos != nullptr && batch.n_seq_id != nullptr && batch.seq_id != nullptr &&
                     batch.logits != nullptr && batch.seq_id[2] != nullptr && batch.seq_id[3] == nullptr;
  if (right) make.batch_free(batch);
  return right;
}

bool tensors_as_expected(const Facts &facts, const Makers &make) {
  constexpr size_t kContextBytes = 1 << 16;
  if (make.overhead() < sizeof(Tensor)) {
    say("llama.cpp: expected tensors of at least %zu bytes, got %zu. Nothing is captured, the engine "
        "serves on; another version of ring2 may know this llama.cpp", sizeof(Tensor), make.overhead());
    return false;
  }
  void *context = make.init({kContextBytes, nullptr, false});
  if (context == nullptr) return false;
  const char *field = wrong_field(facts, make, context);
  make.free(context);
  if (field == nullptr) return true;
  say("llama.cpp: the field \"%s\" of its tensors is not where it was expected. Nothing is captured, the "
      "engine serves on; another version of ring2 may know this llama.cpp", field);
  return false;
}

bool look_up(const void *ggml_function, const void *llama_function, Facts *facts) {
  Makers make{};
  LlamaMakers llama{};
  Lookup ggml{library_of(ggml_function), ""};
  look_up_ggml(ggml, facts, &make);
  Lookup model{library_of(llama_function), ""};
  look_up_llama(model, facts, &llama);
  const std::string missing = ggml.missing + model.missing;
  if (!missing.empty()) {
    say("llama.cpp: these functions are not there: %s. Nothing is captured, the engine serves on; "
        "another version of ring2 may know this llama.cpp", missing.c_str());
    return false;
  }
  if (!tensors_as_expected(*facts, make)) return false;
  if (batch_as_expected(llama)) return true;
  say("llama.cpp: a batch is not laid out as expected. Nothing is captured, the engine serves on; "
      "another version of ring2 may know this llama.cpp");
  return false;
}

}  // namespace

void *real_function(const char *symbol, const void *caller) {
  if (void *next = dlsym(RTLD_NEXT, symbol); next != nullptr) return next;
  void *library = library_of(caller);
  if (library != nullptr && library != own_library()) {
    if (void *found = dlsym(library, symbol); found != nullptr) return found;
  }
  library = told_library.load();
  return library == nullptr ? nullptr : dlsym(library, symbol);
}

bool tell_library(const void *function) {
  void *library = library_of(function);
  const bool usable = library != nullptr && library != own_library();
  if (usable) told_library = library;
  return usable;
}

const Facts *facts(const void *ggml_function, const void *llama_function) {
  static std::once_flag once;
  static Facts found{};
  static bool usable = false;
  std::call_once(once, [&] { usable = look_up(ggml_function, llama_function, &found); });
  return usable ? &found : nullptr;
}

}  // namespace ring2_llama
