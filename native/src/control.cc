// Control words and the questions a producer asks of a copy of them.
//
// A sequence lock of one writer. The words are stored with release and loaded with acquire order,
// instead of fences beside relaxed ones: on x86 it costs the same, and ThreadSanitizer understands it.
// A reader that saw any word of a write therefore sees its odd sequence, and looks again.

#include "control.h"

#include <cstring>

#include "error.h"
#include "segment.h"

namespace ring2 {

namespace {

constexpr uint32_t kWordsPerHook = RING2_LAYERS_MAX / 64;

// What no producer and no consumer of this version writes is read as the nearest thing that one does.
void finish(ring2_control *control) {
  if (control->request_share > RING2_CONTROL_ALL_REQUESTS) {
    control->request_share = RING2_CONTROL_ALL_REQUESTS;
  }
  uint64_t any = 0;
  for (uint32_t hook = 0; hook < RING2_HOOKS_MAX; ++hook) {
    for (uint32_t word = 0; word < kWordsPerHook; ++word) any |= control->wanted[hook][word];
  }
  const bool no_token = control->decode_every == 0 && (control->flags & RING2_CONTROL_PREFILL) == 0;
  control->nothing = any == 0 || control->request_share == 0 || no_token ? 1 : 0;
}

void load_words(const ring2_header &header, ring2_control *out) {
  for (uint32_t hook = 0; hook < RING2_HOOKS_MAX; ++hook) {
    for (uint32_t word = 0; word < kWordsPerHook; ++word) {
      out->wanted[hook][word] = load_acquire(header.wanted[hook][word]);
    }
  }
  out->flags = load_acquire(header.control_flags);
  out->request_share = load_acquire(header.control_request_share);
  out->decode_every = load_acquire(header.control_decode_every);
}

void store_words(ring2_header *header, const ring2_control &control) {
  for (uint32_t hook = 0; hook < RING2_HOOKS_MAX; ++hook) {
    for (uint32_t word = 0; word < kWordsPerHook; ++word) {
      store_release(header->wanted[hook][word], control.wanted[hook][word]);
    }
  }
  store_release(header->control_flags, control.flags);
  store_release(header->control_request_share, control.request_share);
  store_release(header->control_decode_every, control.decode_every);
}

bool same_words(const ring2_control &one, const ring2_control &other) {
  return one.flags == other.flags && one.request_share == other.request_share &&
         one.decode_every == other.decode_every &&
         std::memcmp(one.wanted, other.wanted, sizeof one.wanted) == 0;
}

}  // namespace

void create_control(ring2_header *header) {
  std::memset(header->wanted, 0xff, sizeof header->wanted);
  header->control_flags = RING2_CONTROL_PREFILL;
  header->control_request_share = RING2_CONTROL_ALL_REQUESTS;
  header->control_decode_every = 1;
  header->control_sequence = RING2_CONTROL_SEQUENCE_CREATED;
}

bool read_control(const ring2_header &header, ring2_control *out) {
  for (int attempt = 0; attempt < kControlAttempts; ++attempt) {
    const uint32_t before = load_acquire(header.control_sequence);
    if (before % 2 != 0) continue;
    load_words(header, out);
    if (load_acquire(header.control_sequence) != before) continue;
    out->sequence = before;
    finish(out);
    return true;
  }
  return false;
}

uint32_t write_control(ring2_header *header, const ring2_control &control) {
  const uint32_t before = load_acquire(header->control_sequence);
  ring2_control present = {};
  load_words(*header, &present);
  if (before % 2 == 0 && same_words(present, control)) {
    ring2_control created = {};
    std::memset(created.wanted, 0xff, sizeof created.wanted);
    const bool as_created = std::memcmp(present.wanted, created.wanted, sizeof created.wanted) == 0;
    // An exporter that knows only `wanted` may have changed it under the number of the creation.
    if (before > RING2_CONTROL_SEQUENCE_CREATED || as_created) return before;
  }
  // Odd already when the consumer before this one died in the middle of writing. The numbers of an
  // unknown sequence and of the creation are never given out, also when the number starts again.
  const uint32_t writing = before + 1 <= RING2_CONTROL_SEQUENCE_CREATED || before + 2 == 0
                               ? RING2_CONTROL_SEQUENCE_CREATED + 1
                               : before | 1;
  store_release(header->control_sequence, writing);
  store_words(header, control);
  const uint32_t after = writing + 1;
  store_release(header->control_sequence, after);
  return after;
}

}  // namespace ring2

extern "C" {

int ring2_control_wants(const ring2_control *control, uint32_t hook, int32_t layer) {
  if (control == nullptr || hook >= RING2_HOOKS_MAX) return 0;
  if (layer >= static_cast<int32_t>(RING2_LAYERS_MAX)) return 0;
  const uint32_t bit = layer < 0 ? 0 : static_cast<uint32_t>(layer);
  return static_cast<int>(control->wanted[hook][bit / 64] >> (bit % 64) & 1);
}

int ring2_control_wants_nothing(const ring2_control *control) {
  return control == nullptr || control->nothing != 0 ? 1 : 0;
}

uint32_t ring2_request_hash(const char *request_id, uint64_t bytes) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (uint64_t i = 0; request_id != nullptr && i < bytes; ++i) {
    hash = (hash ^ static_cast<uint8_t>(request_id[i])) * UINT64_C(0x100000001b3);
  }
  hash = (hash ^ (hash >> 33)) * UINT64_C(0xff51afd7ed558ccd);
  hash = (hash ^ (hash >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
  return static_cast<uint32_t>((hash ^ (hash >> 33)) >> 32);
}

int ring2_control_wants_request(const ring2_control *control, const char *request_id,
                                uint64_t bytes, int trace_sampled) {
  if (control == nullptr) return 0;
  if ((control->flags & RING2_CONTROL_SAMPLED_ONLY) != 0 && trace_sampled == 0) return 0;
  if (control->request_share >= RING2_CONTROL_ALL_REQUESTS) return 1;
  return ring2_request_hash(request_id, bytes) < control->request_share ? 1 : 0;
}

int ring2_control_wants_tokens(const ring2_control *control, uint32_t phase, int32_t token_start,
                               int32_t token_end) {
  if (control == nullptr || token_start < 0 || token_end <= token_start) return 0;
  if (phase == RING2_PHASE_PREFILL) return (control->flags & RING2_CONTROL_PREFILL) != 0 ? 1 : 0;
  const uint64_t every = control->decode_every;
  if (every == 0) return 0;
  // Whether a multiple of `every` lies in the half-open range.
  const uint64_t first = (static_cast<uint64_t>(token_start) + every - 1) / every * every;
  return first < static_cast<uint64_t>(token_end) ? 1 : 0;
}

}  // extern "C"
