// Surprisal of tokens that the model was given after it had predicted them; repetition and loops of
// those that it generated.
#include "track_sequence.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "measure.h"
#include "ring2_hooks.h"
#include "tensor_shape.h"
#include "track_state.h"

namespace ring2 {
namespace {

constexpr uint64_t kGramTokens = 4;
constexpr uint64_t kFirstSlots = 64;

bool token_at(const Place &ids, int64_t index, int64_t *token) {
  return integer_at(ids.row(static_cast<uint64_t>(index)), ids.dtype, token);
}

// ------------------------------------------------------------------ surprisal

// -ln p of the label under a row of logits; NaN when there is none. The row is readable.
double surprisal(const SliceContext &context, const Place &logits, uint64_t row,
                 double log_sum_exp, int64_t label) {
  ElementType type;
  if (label < 0 || label >= int64_t{logits.width} || !element_type_of(logits.dtype, &type)) return NAN;
  const uint8_t *at = logits.row(row) + static_cast<uint64_t>(label) * dtype_bytes(logits.dtype);
  // Of one finite element the kernel's maximum is the element itself.
  LogitsBlock block;
  context.kernels->logits[type](at, 1, -std::numeric_limits<double>::infinity(), &block);
  const double value = log_sum_exp - block.maximum;
  if (block.moments.used != 1 || !std::isfinite(value)) return NAN;
  // Rounding of a probability of almost 1 is no negative surprisal.
  return value > 0 ? value : 0;
}

// The slice as one of logits, for folding: both kinds of labels make one series. Its phase is that
// of the token that was predicted.
struct Surprisals {
  ring2_slice *measured;
  ring2_slice folded;
  SliceContext context;
  SampleBatch samples;
  Summary summary;

  Surprisals(const SliceContext &measuring, int32_t layer)
      : measured(measuring.slice),
        folded(*measuring.slice),
        context(as_logits(measuring, &folded, layer)),
        samples(context, RING2_SIGNAL_TOKEN_SURPRISAL) {}

  static SliceContext as_logits(SliceContext measuring, ring2_slice *folded, int32_t layer) {
    folded->hook = RING2_HOOK_FINAL_LOGITS;
    folded->layer = layer;
    measuring.slice = folded;
    return measuring;
  }

  void add(double value) {
    if (!std::isfinite(value)) return;
    summary.add(value);
    samples.add(value);
  }

  void publish() {
    samples.flush();
    if (summary.count > 0) set_stat(measured, RING2_STAT_SURPRISAL_MEAN, summary.mean());
  }
};

void label_logits(const SliceContext &context, ring2_track *track, TrackedRequest *request) {
  request->pending = PendingLogits();
  const Place rows = place_of(context);
  ElementType type;
  if (rows.data == nullptr || context.row_lse == nullptr || !element_type_of(rows.dtype, &type)) return;
  const Place &ids = request->token_ids;
  const bool known = readable(track->ring, ids) && ids.step == rows.step;
  Surprisals surprisals(context, rows.layer);
  for (uint64_t row = 0; row < rows.rows; ++row) {
    const int64_t next = int64_t{rows.token_start} + static_cast<int64_t>(row) + 1;
    const int64_t index = next - ids.token_start;
    int64_t label;
    if (known && index >= 0 && index < int64_t{ids.rows}) {
      if (token_at(ids, index, &label)) {
        surprisals.add(surprisal(context, rows, row, context.row_lse[row], label));
      }
    } else if (row + 1 == rows.rows) {
      request->pending = {last_row(rows), context.row_lse[row]};
    }
  }
  surprisals.publish();
}

void label_pending(const SliceContext &context, ring2_track *track, TrackedRequest *request) {
  const PendingLogits pending = request->pending;
  const Place &ids = request->token_ids;
  const int64_t index = int64_t{pending.row.token_end} - ids.token_start;
  int64_t label;
  if (!readable(track->ring, pending.row) || index < 0 || index >= int64_t{ids.rows} ||
      !token_at(ids, index, &label)) {
    return;
  }
  Surprisals surprisals(context, pending.row.layer);
  surprisals.add(surprisal(context, pending.row, 0, pending.log_sum_exp, label));
  surprisals.publish();
}

// ------------------------------------------------------------------ repetition and loops

// The finalizer of splitmix64.
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

uint64_t hash_of_last(const TokenHistory &history, uint64_t seed) {
  uint64_t hash = seed;
  for (uint64_t back = kGramTokens; back > 0; --back) {
    hash = mix(hash + history.last[(history.tokens - back) % kLoopPeriodMax]);
  }
  return hash == 0 ? 1 : hash;
}

void add_gram(ring2_track *track, TrackedRequest *request) {
  TokenHistory &history = request->history;
  if (history.tokens < kGramTokens || history.overflowed) return;
  HashSet &grams = history.grams;
  if (grams.full()) {
    const uint64_t more = grams.grown_bytes() - grams.bytes();
    if (grams.size() >= kDistinctGramsMax || !take_history_bytes(track, more)) {
      history.overflowed = true;
      drop_grams(track, request);
      return;
    }
    grams.grow();
  }
  grams.add(hash_of_last(history, track->hash_seed));
}

void add_token(ring2_track *track, TrackedRequest *request, uint64_t token) {
  TokenHistory &history = request->history;
  for (uint32_t period = 1; period <= kLoopPeriodMax; ++period) {
    uint32_t &unchanged = history.unchanged[period - 1];
    const bool same = history.tokens >= period &&
                      history.last[(history.tokens - period) % kLoopPeriodMax] == token;
    unchanged = same ? unchanged + 1 : 0;
  }
  history.last[history.tokens % kLoopPeriodMax] = token;
  ++history.tokens;
  add_gram(track, request);
}

void add_generated(const SliceContext &context, ring2_track *track, TrackedRequest *request) {
  const ring2_slice &slice = *context.slice;
  const Place &ids = request->token_ids;
  TokenHistory &history = request->history;
  if (slice.phase != RING2_PHASE_DECODE) return;
  // The same step once more comes from another rank.
  if (history.tokens > 0 && history.step == slice.step) return;
  const int32_t first = std::max(ids.token_start, slice.prompt_tokens);
  if (first >= ids.token_end) return;
  if (history.next != first) {
    drop_grams(track, request);
    history = TokenHistory();
  }
  for (int32_t position = first; position < ids.token_end; ++position) {
    int64_t token;
    if (!token_at(ids, position - ids.token_start, &token)) return;
    add_token(track, request, static_cast<uint64_t>(token));
  }
  history.step = slice.step;
  history.next = ids.token_end;
  const double tokens = static_cast<double>(history.tokens);
  set_stat(context.slice, RING2_STAT_TOKENS_TRACKED, tokens);
  if (history.tokens >= kGramTokens && !history.overflowed) {
    const double distinct = static_cast<double>(history.grams.size());
    set_stat(context.slice, RING2_STAT_REPETITION, 1 - distinct / (tokens - (kGramTokens - 1)));
  }
  if (history.tokens >= kLoopTokensMin) {
    set_stat(context.slice, RING2_STAT_LOOP_PERIOD, history.loop_period());
  }
}

}  // namespace

uint64_t HashSet::grown_bytes() const {
  return std::max<uint64_t>(kFirstSlots * sizeof(uint64_t), 2 * bytes());
}

void HashSet::grow() {
  HashSet larger;
  larger.slots_.resize(grown_bytes() / sizeof(uint64_t));
  for (const uint64_t hash : slots_) {
    if (hash != 0) larger.add(hash);
  }
  *this = std::move(larger);
}

void HashSet::add(uint64_t hash) {
  const uint64_t mask = slots_.size() - 1;
  uint64_t at = hash & mask;
  while (slots_[at] != 0 && slots_[at] != hash) at = (at + 1) & mask;
  size_ += slots_[at] == 0;
  slots_[at] = hash;
}

uint32_t TokenHistory::loop_period() const {
  for (uint32_t period = 1; period <= kLoopPeriodMax; ++period) {
    const uint32_t length = std::max(kLoopRepetitions * period, kLoopTokensMin);
    if (unchanged[period - 1] >= length - period) return period;
  }
  return 0;
}

void track_sequence(const SliceContext &context, ring2_track *track, TrackedRequest *request) {
  if (context.slice->hook == RING2_HOOK_FINAL_LOGITS) return label_logits(context, track, request);
  request->token_ids = place_of(context);
  if (request->token_ids.data != nullptr && context.slice->ndim == 1) {
    label_pending(context, track, request);
    add_generated(context, track, request);
  }
  request->pending = PendingLogits();
}

}  // namespace ring2
