#include "requests.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "engine.h"
#include "options.h"

namespace ring2_llama {

namespace {

struct Registration {
  uint64_t number;
  std::string id;
  std::string traceparent;
};

std::mutex registered_lock;
std::map<int32_t, Registration> registered;
uint64_t registrations = 0;

uint64_t realtime_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

std::optional<Registration> registration_of(int32_t sequence) {
  const std::lock_guard guard(registered_lock);
  const auto found = registered.find(sequence);
  if (found == registered.end()) return std::nullopt;
  return found->second;
}

bool is_hex(const char *text, size_t from, size_t count) {
  for (size_t i = from; i < from + count; ++i) {
    if (std::strchr("0123456789abcdef", text[i]) == nullptr || text[i] == '\0') return false;
  }
  return true;
}

// 00-<32 hex>-<16 hex>-<2 hex>, W3C Trace Context; zero ids are none.
bool is_traceparent(const char *text) {
  const size_t length = strnlen(text, kTraceparentBytesMax + 1);
  if (length < 55 || length > kTraceparentBytesMax || (length > 55 && text[55] != '-')) return false;
  if (text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  if (!is_hex(text, 0, 2) || !is_hex(text, 3, 32) || !is_hex(text, 36, 16) || !is_hex(text, 53, 2)) {
    return false;
  }
  if (std::strncmp(text, "ff", 2) == 0 || (std::strncmp(text, "00", 2) == 0 && length != 55)) return false;
  return std::strspn(text + 3, "0") < 32 && std::strspn(text + 36, "0") < 16;
}

// A prompt has rows without logits; a draft of tokens to verify has them everywhere.
bool begins_anew(const Request &open, const Group &group, bool known_request_waits) {
  const bool continues = group.position == open.next_position;
  if (!open.in_prompt && !group.all_outputs) return true;
  if (known_request_waits) return group.count > 1 || !continues;
  if (continues) return false;
  if (open.in_prompt) return group.position < open.next_position;
  const bool rolled_back = open.drafted && group.position < open.next_position;
  return !rolled_back;
}

Request make_request(Engine &engine, const std::optional<Registration> &known) {
  Request request;
  request.key = engine.next_key++;
  request.started_realtime_ns = realtime_ns();
  if (known.has_value()) {
    request.id = known->id;
    request.traceparent = known->traceparent;
    request.registration = known->number;
  } else {
    request.id = "llama-" + std::to_string(getpid()) + "-" + std::to_string(request.started_realtime_ns) +
                 "-" + std::to_string(request.key);
  }
  return request;
}

// The characters of a request id need no escapes but these: register_request lets no others in.
std::string quoted(const std::string &text) {
  std::string out = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') out += '\\';
    out += letter;
  }
  return out + '"';
}

void send(Engine &engine, uint32_t kind, const std::string &body) {
  ring2_write_json(engine.producer, kind, body.data(), body.size());
}

}  // namespace

const char *register_request(int32_t sequence, const char *id, const char *traceparent) {
  if (sequence < 0 || sequence >= kSequencesMax) return "expected a sequence from 0 to 255";
  const size_t length = id == nullptr ? 0 : strnlen(id, kRequestIdBytesMax + 1);
  if (length == 0 || length > kRequestIdBytesMax) return "expected a request id of 1 to 512 bytes";
  for (size_t i = 0; i < length; ++i) {
    if (id[i] <= ' ' || id[i] > '~') return "expected a request id of visible ASCII characters";
  }
  const bool traced = traceparent != nullptr && *traceparent != '\0';
  if (traced && !is_traceparent(traceparent)) {
    return "expected a W3C traceparent like 00-<32 hex>-<16 hex>-01 in lower case";
  }
  const std::lock_guard guard(registered_lock);
  registered[sequence] = {++registrations, std::string(id, length), traced ? traceparent : ""};
  return nullptr;
}

bool is_registered(int32_t sequence) { return registration_of(sequence).has_value(); }

void unregister_request(int32_t sequence) {
  {
    const std::lock_guard guard(registered_lock);
    registered.erase(sequence);
  }
  for_each_engine(
      [](Engine &engine, void *argument) {
        const auto found = engine.sequences.find(*static_cast<int32_t *>(argument));
        if (found == engine.sequences.end() || !found->second.open.has_value()) return;
        if (found->second.open->registration != 0) end_request(engine, found->second, "ok");
      },
      &sequence);
}

Request &request_of(Engine &engine, const Group &group, bool *prefill) {
  Sequence &sequence = engine.sequences[group.sequence];
  const std::optional<Registration> known = registration_of(group.sequence);
  const uint64_t number = known.has_value() ? known->number : 0;
  if (sequence.open.has_value()) {
    const Request &open = *sequence.open;
    const bool over = open.registration != 0 ? open.registration != number
                                             : begins_anew(open, group, number != 0);
    if (over) end_request(engine, sequence, "ok");
  }
  if (!sequence.open.has_value()) sequence.open = make_request(engine, known);
  Request &request = *sequence.open;
  *prefill = request.in_prompt || !group.all_outputs;
  const int32_t end = group.position + static_cast<int32_t>(group.count);
  request.next_position = end;
  request.tokens = std::max(request.tokens, end);
  if (*prefill) request.prompt_tokens = std::max(request.prompt_tokens, end);
  if (*prefill) request.in_prompt = !group.last_output;
  request.drafted = !*prefill && group.count > 1;
  request.last_ns = ring2_monotonic_ns();
  return request;
}

void announce(Engine &engine, Request &request) {
  if (request.announced) return;
  request.announced = true;
  const std::string trace = request.traceparent.empty() ? "null" : quoted(request.traceparent);
  send(engine, RING2_KIND_REQUEST,
       "{\"key\":" + std::to_string(request.key) + ",\"request_id\":" + quoted(request.id) +
           ",\"traceparent\":" + trace + ",\"tracestate\":null,\"attributes\":{}," +
           "\"started_realtime_ns\":\"" + std::to_string(request.started_realtime_ns) + "\"}");
}

void end_request(Engine &engine, Sequence &sequence, const char *outcome) {
  if (!sequence.open.has_value()) return;
  const Request request = *sequence.open;
  sequence.open.reset();
  if (!request.announced) return;
  send(engine, RING2_KIND_REQUEST_END,
       "{\"key\":" + std::to_string(request.key) + ",\"steps\":" + std::to_string(request.steps) +
           ",\"tokens\":" + std::to_string(request.tokens) +
           ",\"prompt_tokens\":" + std::to_string(request.prompt_tokens) + ",\"outcome\":\"" + outcome +
           "\"}");
}

void end_all_requests(Engine &engine, const char *outcome) {
  for (auto &[_, sequence] : engine.sequences) end_request(engine, sequence, outcome);
}

void end_idle_requests(Engine &engine, uint64_t now_ns) {
  if (engine.decoding) return;
  for (auto &[_, sequence] : engine.sequences) {
    if (!sequence.open.has_value() || sequence.open->registration != 0) continue;
    if (now_ns - sequence.open->last_ns > options().idle_ns) end_request(engine, sequence, "ok");
  }
}

}  // namespace ring2_llama
