#include "engine.h"

#include <unistd.h>

#include <memory>

#include "options.h"
#include "ring2_hooks.h"

namespace ring2_llama {

namespace {

constexpr size_t kMetaBytes = 256;

std::mutex engines_lock;
std::vector<std::unique_ptr<Engine>> &engines() {
  // Never destroyed: a thread of the engine may outlive the static objects of the process.
  static auto *all = new std::vector<std::unique_ptr<Engine>>;
  return *all;
}
size_t opened = 0;

ring2_producer *open_producer() {
  const Options &read = options();
  const std::string name = opened == 0 ? read.segment : read.segment + "-" + std::to_string(opened + 1);
  ++opened;
  ring2_producer_options wanted{};
  wanted.directory = read.directory.empty() ? nullptr : read.directory.c_str();
  wanted.name = name.c_str();
  wanted.payload_bytes = read.payload_bytes;
  ring2_producer *producer = nullptr;
  if (ring2_producer_open(&wanted, &producer) == RING2_OK) return producer;
  say("llama.cpp: no segment could be made: %s. Nothing is captured, the engine serves on",
      ring2_last_error());
  return nullptr;
}

void close(Engine &engine) {
  const std::lock_guard guard(engine.lock);
  if (engine.producer == nullptr) return;
  if (engine.active) end_all_requests(engine, "ok");
  engine.active = false;
  ring2_producer_close(engine.producer);
  engine.producer = nullptr;
}

std::string meta(const Engine &engine, const void *model, const char *key) {
  char text[kMetaBytes] = {};
  if (engine.facts->meta(model, key, text, sizeof text) < 0) return "";
  std::string out;
  for (const char *letter = text; *letter != '\0'; ++letter) {
    const auto code = static_cast<unsigned char>(*letter);
    if (code < 0x20 || code > 0x7e) continue;  // names of models are plain text
    if (code == '"' || code == '\\') out += '\\';
    out += *letter;
  }
  return out;
}

// Tensors of the last layer and behind it have only the rows that go on to the logits: they come, and
// nobody expects them of each step.
bool expected(const Engine &engine, const Tap &tap) {
  if (tap.kind != TapKind::kValues || tap.layer == engine.layers - 1) return false;
  return tap.hook != RING2_HOOK_RESID_FINAL && tap.hook != RING2_HOOK_FINAL_LN &&
         tap.hook != RING2_HOOK_FINAL_LOGITS;
}

bool of_every_row(const Tap &tap) {
  switch (tap.hook) {
    case RING2_HOOK_RESID_PRE:
    case RING2_HOOK_LN1:
    case RING2_HOOK_Q:
    case RING2_HOOK_K:
    case RING2_HOOK_V:
    case RING2_HOOK_Z:
    case RING2_HOOK_ATTN_OUT:
      return true;
    default:
      return false;
  }
}

std::string hooks_of(const Engine &engine) {
  std::map<uint32_t, std::string> layers;
  for (const Tap &tap : engine.plan.taps) {
    const bool last = tap.layer == engine.layers - 1 && of_every_row(tap) && tap.kind == TapKind::kValues;
    if (!expected(engine, tap) && !last) continue;
    std::string &list = layers[tap.hook];
    if (!list.empty()) list += ',';
    list += std::to_string(tap.layer);
  }
  if ((options().hooks >> RING2_HOOK_TOKEN_IDS & 1) != 0) layers[RING2_HOOK_TOKEN_IDS] = "-1";
  std::string out;
  for (const auto &[hook, list] : layers) {
    if (!out.empty()) out += ',';
    out.append("\"").append(ring2_hook_facts[hook].name).append("\":[").append(list).append("]");
  }
  return out;
}

bool is_computed(const Plan &plan) {
  for (const Tap &tap : plan.taps) {
    if (tap.kind == TapKind::kFlash) return true;
  }
  return false;
}

}  // namespace

Engine *engine_of(const void *context, const Facts *facts) {
  const std::lock_guard guard(engines_lock);
  for (const auto &engine : engines()) {
    if (engine->context == context) return engine.get();
  }
  if (engines().size() >= kEnginesMax) return nullptr;
  auto engine = std::make_unique<Engine>();
  const void *model = facts->get_model(context);
  engine->context = context;
  engine->memory = facts->get_memory(context);
  engine->facts = facts;
  engine->layers = facts->n_layer(model);
  engine->heads = facts->n_head(model);
  engine->kv_heads = facts->n_head_kv(model);
  // What pools the rows of a sequence (embeddings, ranking) is no chat that could be followed.
  const bool pools = facts->pooling(context) > 0;
  engine->producer = pools ? nullptr : open_producer();
  engine->active = engine->producer != nullptr;
  if (pools) say("llama.cpp: a context that pools embeddings is not captured");
  engines().push_back(std::move(engine));
  return engines().back().get();
}

Engine *engine_of_memory(const void *memory) {
  const std::lock_guard guard(engines_lock);
  for (const auto &engine : engines()) {
    if (engine->memory == memory && memory != nullptr) return engine.get();
  }
  return nullptr;
}

void close_engine(const void *context) {
  const std::lock_guard guard(engines_lock);
  for (auto found = engines().begin(); found != engines().end(); ++found) {
    if ((*found)->context != context) continue;
    close(**found);
    engines().erase(found);
    return;
  }
}

void close_all_engines() {
  const std::lock_guard guard(engines_lock);
  for (const auto &engine : engines()) close(*engine);
}

void for_each_engine(void (*visit)(Engine &engine, void *argument), void *argument) {
  const std::lock_guard guard(engines_lock);
  for (const auto &engine : engines()) {
    const std::lock_guard one(engine->lock);
    if (engine->producer != nullptr && engine->active) visit(*engine, argument);
  }
}

void disable(Engine &engine, const char *why) {
  if (engine.active) {
    say("llama.cpp: the capture has ended after an error (%s); the engine serves on", why);
  }
  engine.active = false;
}

void announce_model(Engine &engine) {
  if (engine.announced) return;
  engine.announced = true;
  const void *model = engine.facts->get_model(engine.context);
  engine.model = meta(engine, model, "general.name");
  if (engine.model.empty()) engine.model = meta(engine, model, "general.architecture");
  if (engine.model.empty()) engine.model = "llama.cpp";
  engine.hooks = std::string(is_computed(engine.plan) ? ",\"computed\":[\"pattern\"]" : "") +
                 ",\"hooks\":{" + hooks_of(engine) + "}";
  write_model(engine, "");
}

int write_model(Engine &engine, const std::string &fingerprint) {
  const Facts &facts = *engine.facts;
  const void *model = facts.get_model(engine.context);
  const auto number = [](const char *key, int32_t value) {
    return std::string(",\"") + key + "\":" + std::to_string(value);
  };
  const std::string body =
      "{\"name\":\"" + engine.model + "\",\"revision\":\"\",\"engine\":\"llama.cpp\",\"dtype\":\"float32\"" +
      number("layers", engine.layers) + number("heads", engine.heads) +
      number("kv_heads", engine.kv_heads) + number("hidden", facts.n_embd(model)) +
      number("vocabulary", facts.vocab_n_tokens(facts.get_vocab(model))) +
      (fingerprint.empty() ? "" : ",\"vocabulary_fingerprint\":\"" + fingerprint + "\"") +
      engine.hooks + "}";
  return ring2_write_json(engine.producer, RING2_KIND_MODEL, body.data(), body.size());
}

}  // namespace ring2_llama
