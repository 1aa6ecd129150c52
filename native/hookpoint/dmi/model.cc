#include "model.h"

#include <algorithm>
#include <cctype>

#include "ring2_hooks.h"

namespace ring2::dmi {

Model::~Model() {
  if (producer != nullptr) ring2_producer_close(producer);
}

bool Model::known(const Entry &entry, uint32_t *index) {
  const uint64_t key = uint64_t{entry.shard} << 32 | uint64_t{entry.hook} << 16 |
                       static_cast<uint64_t>(entry.layer + 1);
  const auto found = index_of.find(key);
  if (found != index_of.end()) {
    *index = found->second;
    return true;
  }
  if (catalogue.size() >= kCatalogueMax) return false;
  *index = static_cast<uint32_t>(catalogue.size());
  catalogue.push_back(entry);
  index_of.emplace(key, *index);
  described = false;
  return true;
}

void Model::learn(const ring2_tensor &tensor) {
  const auto grow = [&](auto &fact, auto value) {
    if (value <= fact) return;
    fact = value;
    described = false;
  };
  grow(facts.layers, int64_t{tensor.layer} + 1);
  grow(facts.shards, static_cast<uint32_t>(tensor.tp_rank) + 1);
  const int64_t last = tensor.dims[tensor.ndim - 1];
  switch (tensor.hook) {
    case RING2_HOOK_Q:
      if (tensor.ndim == 4) grow(facts.heads, tensor.dims[2] * facts.shards);
      break;
    case RING2_HOOK_K:
    case RING2_HOOK_V:
      // A rank with one head may hold a copy of its neighbour's: nobody knows how many there are.
      if (tensor.ndim == 4) grow(facts.kv_heads_of_shard, tensor.dims[2]);
      break;
    case RING2_HOOK_PATTERN:
    case RING2_HOOK_ATTN_SCORES:
      grow(facts.heads, tensor.dims[1] * facts.shards);
      break;
    case RING2_HOOK_FINAL_LOGITS:
      grow(facts.vocabulary, last);
      break;
    case RING2_HOOK_RESID_PRE:
    case RING2_HOOK_RESID_MID:
    case RING2_HOOK_RESID_FINAL:
    case RING2_HOOK_EMBED:
    case RING2_HOOK_LN1:
    case RING2_HOOK_LN2:
    case RING2_HOOK_FINAL_LN:
      grow(facts.hidden, last);
      break;
    default:
      break;
  }
  if (!facts.dtype.empty() || tensor.dtype > RING2_DTYPE_FLOAT64) return;
  const char *const names[] = {"", "float32", "float16", "bfloat16", "float64"};
  facts.dtype = names[tensor.dtype];
}

std::string Model::describe() const {
  std::map<std::string, std::vector<int32_t>> hooks;
  for (const Entry &entry : catalogue) {
    std::vector<int32_t> &layers = hooks[ring2_hook_facts[entry.hook].name];
    if (std::find(layers.begin(), layers.end(), entry.layer) == layers.end()) {
      layers.push_back(entry.layer);
    }
  }
  std::string text = "{\"name\":" + json_text(facts.name) + ",\"engine\":\"dmi\"";
  if (!facts.dtype.empty()) ((text += ",\"dtype\":\"") += facts.dtype) += '"';
  const int64_t shards = facts.shards > 1 ? facts.shards : 0;
  const bool copied = shards > 0 && facts.kv_heads_of_shard == 1;
  const int64_t kv_heads = copied ? 0 : facts.kv_heads_of_shard * std::max<int64_t>(shards, 1);
  const std::pair<const char *, int64_t> sizes[] = {{"layers", facts.layers},
                                                    {"heads", facts.heads},
                                                    {"kv_heads", kv_heads},
                                                    {"hidden", facts.hidden},
                                                    {"vocabulary", facts.vocabulary},
                                                    {"shards", shards}};
  for (const auto &[name, value] : sizes) {
    if (value > 0) ((text += ",\"") += name) += "\":" + std::to_string(value);
  }
  text += ",\"hooks\":{";
  for (auto &[hook, layers] : hooks) {
    std::sort(layers.begin(), layers.end());
    if (text.back() != '{') text += ',';
    ((text += '"') += hook) += "\":[";
    for (const int32_t layer : layers) {
      if (text.back() != '[') text += ',';
      text += std::to_string(layer);
    }
    text += ']';
  }
  return text + "}}";
}

void Model::send_description(uint64_t now) {
  if (described || catalogue.empty()) return;
  const std::string text = describe();
  described_ns = now;
  described = ring2_write_json(producer, RING2_KIND_MODEL, text.data(), text.size()) == RING2_OK;
}

std::shared_ptr<const ring2_control> Model::control_now() {
  auto fresh = std::make_shared<ring2_control>();
  if (ring2_take_control(producer, fresh.get()) != RING2_OK) fresh->nothing = 1;
  if (control == nullptr || control->sequence != fresh->sequence ||
      control->nothing != fresh->nothing) {
    control = fresh;
  }
  return control;
}

Request *Model::request_of(const std::string &id, uint64_t now) {
  const auto found = key_of.find(id);
  if (found != key_of.end()) return &requests.at(found->second);
  if (requests.size() >= kRequestsMax) return nullptr;
  Request &request = requests[next_key];
  request.key = next_key++;
  request.id = id;
  request.last_ns = now;
  key_of.emplace(id, request.key);
  return &request;
}

bool Model::whole(const Request &request) const {
  if (!request.held.empty()) return false;
  for (const auto &[place, step] : request.steps) {
    if (step.id < 0) continue;
    for (uint32_t i = 0; i < catalogue.size(); ++i) {
      const bool seen = i / 64 < step.seen.size() && (step.seen[i / 64] >> (i % 64) & 1) != 0;
      if (seen) continue;
      const Entry &entry = catalogue[i];
      if (ring2_control_wants(step.control.get(), entry.hook, entry.layer) != 0) return false;
    }
  }
  return true;
}

void Model::end(uint64_t key, const char *why) {
  Request &request = requests.at(key);
  int32_t tokens = 0;
  int32_t prompt = INT32_MAX;
  for (const auto &[place, step] : request.steps) {
    tokens = std::max(tokens, step.end);
    if (step.end - step.start == 1 && step.start > 0) prompt = std::min(prompt, step.start);
  }
  if (request.announced) {
    send_description(now_ns());
    const std::string text =
        "{\"key\":" + std::to_string(request.key) +
        ",\"steps\":" + std::to_string(request.steps_written) +
        ",\"tokens\":" + std::to_string(tokens) +
        ",\"prompt_tokens\":" + std::to_string(std::min(prompt, tokens)) + ",\"outcome\":\"" +
        (why == nullptr ? "ok" : why) + "\"}";
    ring2_write_json(producer, RING2_KIND_REQUEST_END, text.data(), text.size());
  }
  steps_kept -= request.steps.size();
  key_of.erase(request.id);
  requests.erase(key);
}

const Step *step_of_logits(const Request &request, const Row &row, bool *exact) {
  const auto own = request.steps.find(step_place(row.start, row.end));
  if (own != request.steps.end()) return &own->second;
  const auto first = request.steps.lower_bound(step_place(0, row.end));
  for (auto at = first; at != request.steps.end() && at->second.end == row.end; ++at) {
    if (at->second.start <= row.start) return &at->second;
  }
  const auto before = request.steps.lower_bound(step_place(0, row.start));
  // A step that begins where the logits do has no other end.
  *exact = row.start == 0 || (before != request.steps.end() && before->second.end == row.start);
  return nullptr;
}

bool names_a_trace(const std::string &request_id) {
  if (request_id.size() != 49 || request_id[32] != '-') return false;
  for (size_t i = 0; i < request_id.size(); ++i) {
    if (i != 32 && std::isxdigit(static_cast<unsigned char>(request_id[i])) == 0) return false;
  }
  return true;
}

}  // namespace ring2::dmi
