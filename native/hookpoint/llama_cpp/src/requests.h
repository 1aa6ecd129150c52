// Which request each sequence of a context is processing. A sequence (of llama-server: a slot) has one
// request at a time. It is known from whoever registered it, or begins where a prompt begins.
#ifndef RING2_LLAMA_REQUESTS_H
#define RING2_LLAMA_REQUESTS_H

#include <cstdint>
#include <optional>
#include <string>

namespace ring2_llama {

struct Engine;
struct Group;

constexpr size_t kRequestIdBytesMax = 512;
constexpr size_t kTraceparentBytesMax = 128;

struct Request {
  uint64_t key = 0;
  std::string id;
  std::string traceparent;  // empty: none
  uint64_t registration = 0;  // 0: nobody registered it
  uint64_t started_realtime_ns = 0;
  uint64_t last_ns = 0;
  int64_t steps = 0;
  int32_t tokens = 0;
  int32_t prompt_tokens = 0;
  int32_t next_position = 0;
  bool announced = false;  // the REQUEST record is written
  bool in_prompt = true;   // the rows so far ended without logits
  bool drafted = false;    // the last rows were several, each with logits
};

struct Sequence {
  std::optional<Request> open;
};

// What comes next in a sequence is of this request, until its end or the next one's begin. NULL, or what
// is wrong with the words.
const char *register_request(int32_t sequence, const char *id, const char *traceparent);
void unregister_request(int32_t sequence);
bool is_registered(int32_t sequence);

// The request that a group of rows belongs to; 1 in *prefill when they are of its prompt.
Request &request_of(Engine &engine, const Group &group, bool *prefill);

// Writes the REQUEST record if it has not been.
void announce(Engine &engine, Request &request);
void end_request(Engine &engine, Sequence &sequence, const char *outcome);
void end_all_requests(Engine &engine, const char *outcome);
// Ends requests that had no row for the time of the options.
void end_idle_requests(Engine &engine, uint64_t now_ns);

}  // namespace ring2_llama

#endif
