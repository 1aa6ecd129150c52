// The texts of a model's token ids, sent once per segment by the housekeeping thread: read in small
// steps, then written part by part where the ring has room for several, and the MODEL record again
// with their fingerprint behind them.
//
// Never on the way of a decode; whatever cannot be sent is one log line, and texts are then not known.
#ifndef RING2_LLAMA_VOCABULARY_H
#define RING2_LLAMA_VOCABULARY_H

#include <cstdint>
#include <string>
#include <vector>

#include "sha256.h"

namespace ring2_llama {

struct Engine;

// JSON lists of the texts of ids that follow each other, from `first` on.
struct VocabularyPart {
  int32_t first;
  std::string texts;
};

struct Vocabulary {
  std::vector<VocabularyPart> parts;
  Sha256 digest;
  std::string fingerprint;  // empty until every text has been read
  int32_t read = 0;         // ids
  size_t bytes = 0;         // of all parts
  size_t sent = 0;          // parts
  bool over = false;
};

enum class VocabularyState { kOver, kGoesOn, kWaits };

// One small step: some texts, or one record. kWaits: for the MODEL record, or for room in the ring.
// The engine's lock is held.
VocabularyState send_vocabulary(Engine &engine);

}  // namespace ring2_llama

#endif
