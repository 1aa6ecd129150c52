#include "plan.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "ring2.h"
#include "ring2_hooks.h"

namespace ring2_llama {

namespace {

constexpr int kNodesMax = 1 << 17;

struct Name {
  std::string_view stem;
  int32_t layer;
};

// "l_out-12" → {"l_out", 12}; without a number, layer -1. "DEV#name#0" is a copy between devices: no name.
Name split(const Tensor *tensor) {
  const std::string_view name(tensor->name, strnlen(tensor->name, sizeof tensor->name));
  const size_t dash = name.rfind('-');
  if (dash == std::string_view::npos || dash + 1 == name.size()) return {name, -1};
  int32_t layer = 0;
  for (const char digit : name.substr(dash + 1)) {
    if (digit < '0' || digit > '9') return {name, -1};
    layer = layer * 10 + (digit - '0');
    if (layer >= static_cast<int32_t>(RING2_LAYERS_MAX)) return {name, -1};
  }
  return {name.substr(0, dash), layer};
}

class Finder {
 public:
  Finder(const Facts &facts, uint32_t hooks, int nodes, Plan *plan)
      : facts_(facts), hooks_(hooks), plan_(plan) {
    place_.reserve(static_cast<size_t>(nodes));
  }

  void look(const Tensor *node, uint32_t index) {
    place_[node] = index;
    const Name name = split(node);
    inputs(node, name);
    if (name.layer >= 0) layered(node, name);
    else global(node, name.stem);
  }

  void finish() {
    for (const auto &[key, node] : last_) add(key.first, key.second, node, TapKind::kValues);
    std::stable_sort(plan_->taps.begin(), plan_->taps.end(),
                     [](const Tap &one, const Tap &other) { return one.index < other.index; });
  }

 private:
  // A node is asked about several times in a row: its operator is looked up once.
  bool is(const Tensor *node, const char *op) {
    if (node != described_) {
      described_ = node;
      description_ = facts_.op_desc(node);
    }
    return std::strcmp(description_, op) == 0;
  }

  bool is_norm(const Tensor *node) { return is(node, "RMS_NORM") || is(node, "NORM"); }

  void add(uint32_t hook, int32_t layer, const Tensor *tensor, TapKind kind) {
    const auto found = place_.find(tensor);
    if ((hooks_ >> hook & 1) == 0 || found == place_.end()) return;
    plan_->taps.push_back({tensor, found->second, hook, layer, kind});
  }

  // The last tensor of a name counts.
  void keep(uint32_t hook, int32_t layer, const Tensor *tensor) { last_[{hook, layer}] = tensor; }

  void keep_first(uint32_t hook, int32_t layer, const Tensor *tensor) {
    last_.emplace(std::pair{hook, layer}, tensor);
  }

  void inputs(const Tensor *node, const Name &name) {
    const Tensor *second = node->src[1];
    if (is(node, "GET_ROWS") && second != nullptr) {
      const bool leaf = is(second, "NONE");
      if (std::strcmp(second->name, "inp_tokens") == 0) plan_->token_ids = second;
      else if (leaf && !is(node->src[0], "NONE")) output_rows(node, second);
      if (name.stem == "pos_embd") plan_->positions = second;
    }
    if (is(node, "ROPE") && plan_->positions == nullptr) plan_->positions = second;
    if (is(node, "SSM_CONV") || is(node, "SSM_SCAN") || name.stem.starts_with("cache_r") ||
        name.stem.starts_with("cache_s")) {
      plan_->recurrent = true;
    }
    if (is(node, "SET_ROWS") && plan_->cache == nullptr) {
      const Tensor *cache = node->view_src;
      if (cache != nullptr && std::strncmp(cache->name, "cache_k", 7) == 0) {
        plan_->cache = cache;
        plan_->cell_ids = second;
      }
    }
  }

  // Rows that go on to the logits are taken from activations, not from a table of weights.
  void output_rows(const Tensor *node, const Tensor *ids) {
    const bool rows_of_tokens = plan_->token_ids != nullptr && node->src[0]->ne[1] == plan_->token_ids->ne[0];
    if (rows_of_tokens && node->src[0]->ne[2] == 1) plan_->output_ids = ids;
  }

  void global(const Tensor *node, std::string_view stem) {
    if (stem == "embd" || stem == "inp_embd") keep(RING2_HOOK_EMBED, -1, node);
    else if (stem == "pos_embd") keep(RING2_HOOK_POS_EMBED, -1, node);
    else if (stem == "norm" && is_norm(node)) keep(RING2_HOOK_RESID_FINAL, -1, node->src[0]);
    else if (stem == "result_norm") keep(RING2_HOOK_FINAL_LN, -1, node);
    else if (stem == "result_output") keep(RING2_HOOK_FINAL_LOGITS, -1, node);
  }

  void layered(const Tensor *node, const Name &name) {
    const std::string_view stem = name.stem;
    if (stem == "norm" && is_norm(node)) keep_first(RING2_HOOK_RESID_PRE, name.layer, node->src[0]);
    else if (stem == "attn_norm") keep(RING2_HOOK_LN1, name.layer, node);
    else if (stem == "attn_out") keep(RING2_HOOK_ATTN_OUT, name.layer, node);
    else if (stem == "ffn_inp") keep(RING2_HOOK_RESID_MID, name.layer, node);
    else if (stem == "ffn_norm") {
      keep(RING2_HOOK_LN2, name.layer, node);
      keep(RING2_HOOK_MLP_IN, name.layer, node);
    } else if (stem == "ffn_out" || stem == "ffn_moe_out") {
      keep(RING2_HOOK_MLP_OUT, name.layer, node);
      if (is(node, "MUL_MAT")) keep(RING2_HOOK_MLP_POST, name.layer, node->src[1]);
    } else if (stem.starts_with("ffn_moe_")) experts(node, name);
    else attention(node, name);
  }

  void experts(const Tensor *node, const Name &name) {
    const std::string_view stem = name.stem.substr(std::strlen("ffn_moe_"));
    if (stem == "logits") keep(RING2_HOOK_ROUTER_LOGITS, name.layer, node);
    if (stem == "topk") keep(RING2_HOOK_TOPK_IDS, name.layer, node);
    const bool weights = stem == "weights" || stem == "weights_norm" || stem == "weights_softmax" ||
                         stem == "weights_scaled";
    if (weights) keep(RING2_HOOK_TOPK_WEIGHTS, name.layer, node);
  }

  // Queries and keys before the rotary step are its source; without one, the last tensor of the name.
  void attention(const Tensor *node, const Name &name) {
    const bool rope = is(node, "ROPE");
    if (name.stem == "Qcur") keep(RING2_HOOK_Q, name.layer, rope ? node->src[0] : node);
    else if (name.stem == "Kcur") keep(RING2_HOOK_K, name.layer, rope ? node->src[0] : node);
    else if (name.stem == "Vcur") keep(RING2_HOOK_V, name.layer, node);
    else if (name.stem == "kq_soft_max") add(RING2_HOOK_PATTERN, name.layer, node, TapKind::kAttention);
    else if (name.stem == "kqv_out") {
      keep(RING2_HOOK_Z, name.layer, node);
      flash(node, name.layer);
    }
  }

  void flash(const Tensor *node, int32_t layer) {
    const Tensor *source = node;
    for (int depth = 0; depth < 4 && source != nullptr; ++depth) {
      if (is(source, "FLASH_ATTN_EXT")) return add(RING2_HOOK_PATTERN, layer, source, TapKind::kFlash);
      source = source->src[0];
    }
  }

  const Facts &facts_;
  const uint32_t hooks_;
  Plan *plan_;
  const Tensor *described_ = nullptr;
  const char *description_ = nullptr;
  std::unordered_map<const Tensor *, uint32_t> place_;
  std::map<std::pair<uint32_t, int32_t>, const Tensor *> last_;
};

}  // namespace

Plan make_plan(const Facts &facts, void *graph, uint32_t hooks) {
  Plan plan;
  const int count = facts.graph_n_nodes(graph);
  if (count <= 0 || count > kNodesMax) return plan;
  Finder finder(facts, hooks, count, &plan);
  for (int index = 0; index < count; ++index) {
    finder.look(facts.graph_node(graph, index), static_cast<uint32_t>(index));
  }
  finder.finish();
  plan.tokens = plan.token_ids == nullptr ? 0 : static_cast<uint32_t>(plan.token_ids->ne[0]);
  plan.valid = plan.token_ids != nullptr && plan.positions != nullptr &&
               plan.positions->ne[0] == plan.token_ids->ne[0];
  return plan;
}

}  // namespace ring2_llama
