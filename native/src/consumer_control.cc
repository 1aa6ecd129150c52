// The consumer's side of the control words: what the exporter wants, for the producer to read.

#include "consumer.h"
#include "control.h"
#include "error.h"

using namespace ring2;

extern "C" {

int ring2_consumer_set_control(ring2_consumer *consumer, const ring2_control *control,
                               uint32_t *sequence) {
  if (consumer == nullptr || control == nullptr || sequence == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null consumer, control or result");
  }
  *sequence = write_control(consumer->segment.header, *control);
  return RING2_OK;
}

int ring2_consumer_control(ring2_consumer *consumer, ring2_control *out) {
  if (consumer == nullptr || out == nullptr) {
    return ring2_set_error(RING2_E_ARGUMENT, "a null consumer or result");
  }
  // This process is the one writer, so that only a writer that died leaves words nobody can read.
  if (!read_control(*consumer->segment.header, out)) *out = {};
  return RING2_OK;
}

int ring2_consumer_want(ring2_consumer *consumer, uint32_t hook, int32_t layer, int wanted) {
  if (consumer == nullptr || hook >= RING2_HOOKS_MAX || layer < -2 ||
      layer >= static_cast<int32_t>(RING2_LAYERS_MAX)) {
    return ring2_set_error(RING2_E_ARGUMENT, "hook %u, layer %d; expected a hook below %u and a layer "
                           "from -2 to %u", hook, layer, RING2_HOOKS_MAX, RING2_LAYERS_MAX - 1);
  }
  ring2_control control;
  const int read = ring2_consumer_control(consumer, &control);
  if (read != RING2_OK) return read;
  for (uint32_t word = 0; word < RING2_LAYERS_MAX / 64; ++word) {
    uint64_t bits = ~uint64_t{0};
    if (layer != -2) {
      const uint32_t bit = layer < 0 ? 0 : static_cast<uint32_t>(layer);
      bits = bit / 64 == word ? uint64_t{1} << (bit % 64) : 0;
    }
    uint64_t &current = control.wanted[hook][word];
    current = wanted != 0 ? current | bits : current & ~bits;
  }
  write_control(consumer->segment.header, control);
  return RING2_OK;
}

}  // extern "C"
