// One model of a DMI deployment: its segment, its requests, their steps, and what was seen of them.
// Everything here is under the ledger's lock, but the copying into claimed places.
#ifndef RING2_DMI_MODEL_H
#define RING2_DMI_MODEL_H

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "block.h"
#include "counts.h"
#include "ring2.h"

namespace ring2::dmi {

// A range of tokens of one request: what one forward pass did for it.
struct Step {
  int64_t id = -1;         // -1: nobody wants it, and it has no STEP record
  int32_t start = 0, end = 0;
  uint64_t announced = 0;  // how many STEP records the segment had then
  std::shared_ptr<const ring2_control> control;
  std::vector<uint64_t> seen;  // bit: index in the model's catalogue
};

// Logits whose step is not known yet.
struct HeldRow {
  Row row;
  std::vector<uint8_t> data;
  uint64_t until_ns;
  uint64_t charged;  // to the budget
};

struct Request {
  uint64_t key = 0;
  std::string id;
  bool announced = false;
  uint64_t last_ns = 0;
  uint64_t judged_ns = 0;  // last_ns when it was found to lack something
  uint64_t steps_written = 0;
  std::map<uint64_t, Step> steps;  // by end, then start
  std::deque<HeldRow> held;
};

// What one step of a request should have: a hook of a layer from a shard.
struct Entry {
  uint32_t hook;
  int32_t layer;
  uint32_t shard;
};

// A model's name and what its rows tell of it.
struct ModelFacts {
  std::string name;
  std::string dtype;
  int64_t hidden = 0, heads = 0, kv_heads_of_shard = 0, vocabulary = 0, layers = 0;
  uint32_t shards = 0;
};

struct Model {
  ~Model();
  bool known(const Entry &entry, uint32_t *index);
  void learn(const ring2_tensor &tensor);
  std::string describe() const;
  // A control word's copy that is as new as the segment's.
  std::shared_ptr<const ring2_control> control_now();

  Request *request_of(const std::string &id, uint64_t now);
  // Whether every entry of the catalogue that is wanted has come for every step.
  bool whole(const Request &request) const;
  // Writes REQUEST_END and forgets it; it holds no rows any more. `why` is null when it was whole.
  void end(uint64_t key, const char *why);
  void send_description(uint64_t now);

  ring2_producer *producer = nullptr;
  std::string segment;
  ModelFacts facts;
  std::vector<Entry> catalogue;
  std::unordered_map<uint64_t, uint32_t> index_of;
  std::unordered_map<std::string, uint64_t> key_of;
  std::map<uint64_t, Request> requests;
  std::shared_ptr<const ring2_control> control;
  uint64_t next_key = 1;
  int64_t next_step = 0;
  uint64_t steps_announced = 0;
  uint64_t steps_kept = 0;
  uint64_t last_ns = 0;
  uint64_t described_ns = 0;
  bool described = false;  // the MODEL record is as the catalogue is
};

inline uint64_t step_place(int64_t start, int64_t end) {
  return static_cast<uint64_t>(end) << 32 | static_cast<uint64_t>(start);
}

// The step that a row of logits belongs to, or null. Logits are of the last tokens of a step only,
// so that their range is a part of it. `exact`: it is certain that a step has the very range of the
// row.
const Step *step_of_logits(const Request &request, const Row &row, bool *exact);

// `<trace id>-<span id>` in hexadecimal.
bool names_a_trace(const std::string &request_id);

}  // namespace ring2::dmi
#endif
