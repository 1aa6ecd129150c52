// One llama_context that is captured: its segment, the plan of its graph, its sequences, and the
// decode that is running. A context is used by one thread at a time; the lock is for the channel and
// the housekeeping beside it.
#ifndef RING2_LLAMA_ENGINE_H
#define RING2_LLAMA_ENGINE_H

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "llama_facts.h"
#include "plan.h"
#include "requests.h"
#include "ring2.h"
#include "vocabulary.h"

namespace ring2_llama {

constexpr int32_t kSequencesMax = 256;   // as llama.cpp itself
constexpr size_t kEnginesMax = 16;       // contexts of one process

// One row of a batch. `taken`: an earlier ubatch of the decode has had it.
struct BatchRow {
  int32_t token;
  int32_t position;
  int32_t sequence;  // -1: of several sequences, or of none
  bool output;
  bool taken;
};

// Consecutive rows of one sequence in a ubatch, at consecutive positions.
struct Group {
  int32_t sequence;
  int32_t position;
  uint32_t row;
  uint32_t count;
  bool all_outputs;
  bool last_output;
};

// A STEP that was written, and the runs of its tensors' rows that are captured. -1: none.
struct Step {
  int64_t number = -1;
  uint32_t rows_in = 0;   // rows of the engine's tensor
  bool whole = false;
  std::vector<ring2_run> runs;
};

// A query whose attention is captured: row of the ubatch, and the cells of its keys in order.
struct Query {
  int64_t step;
  uint32_t row;
  int32_t sequence;
  int32_t position;
  std::vector<int64_t> cells;
};

struct Ubatch {
  ring2_control control;
  uint32_t tokens = 0;
  std::vector<BatchRow> rows;
  std::vector<uint32_t> outputs;  // rows of the ubatch whose logits are computed
  Step all;
  Step output;
  std::vector<Query> queries;
  size_t next = 0;  // of the plan's taps that are wanted
  std::vector<const Tap *> taps;
};

// Where the keys of each sequence's positions lie in the cache; -1: not known.
using Cells = std::map<int32_t, std::vector<int64_t>>;

struct Engine {
  const void *context = nullptr;
  void *memory = nullptr;
  const Facts *facts = nullptr;
  ring2_producer *producer = nullptr;
  std::mutex lock;
  int32_t layers = 0, heads = 0, kv_heads = 0;
  bool announced = false;  // the MODEL record is written
  std::string model;       // its name, as it stands in JSON
  std::string hooks;       // its fields of what is captured
  bool active = true;
  int64_t next_step = 0;
  bool decoding = false;
  std::map<int32_t, Sequence> sequences;
  uint64_t next_key = 1;
  Cells cells;
  Plan plan;
  std::vector<BatchRow> batch;
  Ubatch ubatch;
  Vocabulary vocabulary;
};

// The engine of a context, made when it is first seen; NULL when nothing can be captured from it.
Engine *engine_of(const void *context, const Facts *facts);
Engine *engine_of_memory(const void *memory);
void close_engine(const void *context);
void close_all_engines();
// Calls with each engine's lock held.
void for_each_engine(void (*visit)(Engine &engine, void *argument), void *argument);

// Closes the capture of an engine after an error, with one log line.
void disable(Engine &engine, const char *why);

// Once, before the first step; and again with the fingerprint of the vocabulary, when that is known. As
// ring2_write_json.
void announce_model(Engine &engine);
int write_model(Engine &engine, const std::string &fingerprint);

}  // namespace ring2_llama

#endif
