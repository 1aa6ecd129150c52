// What an exporter does with full rings: drain, cut into slices, norm statistics, release; against
// a plain read of the same payload bytes, in alternating pairs on one core. Then the same with the
// statistics over several tensors of a request, against the same without them.
//
// Prints one JSON line for each: {name, unit, ours, peers, ratio}.
// usage: drain_bench [pairs]
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <unistd.h>

#include "pairs.h"
#include "ring2.h"
#include "ring2_hooks.h"

namespace {

constexpr uint64_t kPayloadBytes = uint64_t{256} << 20;
constexpr uint32_t kHidden = 4096;

// The residual stream of one request, step by step.
struct Stream {
  uint32_t dtype;
  uint32_t tokens;  // of a step
  int32_t layers;
  uint32_t phase;

  uint64_t tensor_bytes() const { return uint64_t{tokens} * kHidden * ring2_dtype_bytes(dtype); }
};

struct Ring {
  ring2_producer *producer = nullptr;
  ring2_consumer *consumer = nullptr;
  std::vector<ring2_slice> slices = std::vector<ring2_slice>(4096);
  int64_t step = 0;
  int32_t position = 0;

  Ring() {
    // Two runs at once do not meet.
    const std::string name = "bench-drain-" + std::to_string(getpid());
    ring2_producer_options options = {nullptr, name.c_str(), kPayloadBytes, 1u << 15, 0, 0};
    if (ring2_producer_open(&options, &producer) != RING2_OK) fail();
    const std::string path = "/dev/shm/ring2." + name;
    if (ring2_consumer_open(path.c_str(), &consumer) != RING2_OK) fail();
  }

  ~Ring() {
    ring2_consumer_close(consumer, 0);
    ring2_producer_close(producer);
  }

  [[noreturn]] static void fail() {
    std::fprintf(stderr, "%s\n", ring2_last_error());
    std::exit(1);
  }

  // Fills nine tenths of the ring with steps of one request; returns how many tensors.
  uint64_t fill(const Stream &stream, const void *data) {
    uint64_t tensors = 0;
    const auto layers = static_cast<uint64_t>(stream.layers);
    while ((tensors + layers) * stream.tensor_bytes() <= kPayloadBytes / 10 * 9) {
      ring2_step_header header = {};
      header.step = step;
      header.row_count = 1;
      header.columns = stream.tokens;
      ring2_step_row row = {};
      row.request_key = 1;
      row.phase = static_cast<uint8_t>(stream.phase);
      if (stream.phase == RING2_PHASE_DECODE) row.token_start = position;
      position = row.token_end = row.token_start + static_cast<int32_t>(stream.tokens);
      if (ring2_write_step(producer, &header, &row) != RING2_OK) fail();
      for (int32_t layer = 0; layer < stream.layers; ++layer, ++tensors) {
        write(stream, layer, data);
      }
      ++step;
    }
    return tensors;
  }

  void write(const Stream &stream, int32_t layer, const void *data) {
    ring2_tensor tensor = {};
    tensor.hook = RING2_HOOK_RESID_PRE;
    tensor.layer = layer;
    tensor.dtype = stream.dtype;
    tensor.ndim = 3;
    tensor.step = step;
    const int64_t dims[] = {1, stream.tokens, kHidden};
    const int64_t strides[] = {int64_t{stream.tokens} * kHidden, kHidden, 1};
    for (int axis = 0; axis < 3; ++axis) {
      tensor.dims[axis] = dims[axis];
      tensor.strides[axis] = strides[axis];
    }
    if (ring2_write_tensor(producer, &tensor, data) != RING2_OK) fail();
  }

  // The exporter's work, without the store: every record drained, measured, released.
  void drain_all(ring2_fold *fold, ring2_track *track = nullptr, uint32_t groups = 0) {
    ring2_drain_result result;
    do {
      if (ring2_drain(consumer, slices.data(), slices.size(), uint64_t{64} << 20, &result) !=
          RING2_OK) {
        fail();
      }
      for (uint64_t i = 0; i < result.slices; ++i) {
        slices[i].action = RING2_ACTION_STATS;
        slices[i].groups = groups;
      }
      if (ring2_measure(consumer, fold, track, slices.data(), result.slices) != RING2_OK) fail();
      if (ring2_release(consumer, result.next_position) != RING2_OK) fail();
    } while (result.next_position < result.head_position);
  }
};

// Small finite numbers in every dtype: a sign, a middling exponent, random fractions.
std::vector<uint8_t> random_tensor(const Stream &stream) {
  std::vector<uint8_t> data(stream.tensor_bytes());
  std::mt19937 random(1);
  for (size_t at = 0; at < data.size(); ++at) data[at] = static_cast<uint8_t>(random() & 0xff);
  const size_t element = ring2_dtype_bytes(stream.dtype);
  for (size_t at = element - 1; at < data.size(); at += element) {
    data[at] = static_cast<uint8_t>((data[at] & 0x80) | 0x38);
  }
  return data;
}

void bench(const char *dtype_name, uint32_t dtype, size_t pairs) {
  Ring ring;
  ring2_fold *fold = nullptr;
  if (ring2_fold_create(&fold) != RING2_OK) Ring::fail();
  const Stream stream = {dtype, 16, 1, RING2_PHASE_PREFILL};
  const std::vector<uint8_t> data = random_tensor(stream);
  // Touches every page of the ring before anything is timed.
  ring.fill(stream, data.data());
  ring.drain_all(fold);
  ring.fill(stream, data.data());
  ring.drain_all(fold);
  const auto *payload = static_cast<const uint8_t *>(ring2_consumer_payload(ring.consumer));
  std::vector<double> ours;
  std::vector<double> plain;
  for (size_t pair = 0; pair < pairs; ++pair) {
    const uint64_t bytes = ring.fill(stream, data.data()) * stream.tensor_bytes();
    const auto drain = [&] { ring.drain_all(fold); };
    const auto read = [&] { plain_read(payload, bytes); };
    double drain_seconds;
    double read_seconds;
    if (pair % 2 == 0) {
      drain_seconds = seconds_of(drain);
      read_seconds = seconds_of(read);
    } else {
      read_seconds = seconds_of(read);
      drain_seconds = seconds_of(drain);
    }
    ours.push_back(static_cast<double>(bytes) / drain_seconds / 1e9);
    plain.push_back(static_cast<double>(bytes) / read_seconds / 1e9);
  }
  print_pairs(std::string("drain + norm statistics, ") + dtype_name, "GB/s", "plain read", ours,
              plain);
  ring2_fold_destroy(fold);
}

// Slices per second with these groups, and without.
void bench_track(const char *name, const Stream &stream, uint32_t groups, size_t pairs) {
  Ring ring;
  ring2_fold *fold = nullptr;
  ring2_track *track = nullptr;
  if (ring2_fold_create(&fold) != RING2_OK || ring2_track_create(&track) != RING2_OK) Ring::fail();
  const std::vector<uint8_t> data = random_tensor(stream);
  std::vector<double> with_track;
  std::vector<double> without;
  for (size_t pair = 0; pair < pairs + 1; ++pair) {
    for (const bool tracked : {pair % 2 == 0, pair % 2 != 0}) {
      const double slices = static_cast<double>(ring.fill(stream, data.data()));
      const double seconds = seconds_of([&] {
        tracked ? ring.drain_all(fold, track, groups) : ring.drain_all(fold);
      });
      // The first pair touches every page of the ring.
      if (pair > 0) (tracked ? with_track : without).push_back(slices / seconds);
    }
  }
  print_pairs(std::string("drain + ") + name, "slices/s", "norm statistics alone", with_track,
              without);
  ring2_track_destroy(track);
  ring2_fold_destroy(fold);
}

}  // namespace

int main(int argc, char **argv) {
  const size_t pairs = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 15;
  bench("float32", RING2_DTYPE_FLOAT32, pairs);
  bench("float16", RING2_DTYPE_FLOAT16, pairs);
  bench("bfloat16", RING2_DTYPE_BFLOAT16, pairs);
  const Stream decode = {RING2_DTYPE_BFLOAT16, 1, 32, RING2_PHASE_DECODE};
  const Stream prefill = {RING2_DTYPE_BFLOAT16, 512, 8, RING2_PHASE_PREFILL};
  bench_track("layer to layer, decode, bfloat16", decode, RING2_GROUP_LAYERS, pairs);
  bench_track("likeness of tokens, decode, bfloat16", decode, RING2_GROUP_REPRESENTATION, pairs);
  bench_track("layer to layer, prefill of 512, bfloat16", prefill, RING2_GROUP_LAYERS, pairs);
  bench_track("likeness of tokens, prefill of 512, bfloat16", prefill, RING2_GROUP_REPRESENTATION,
              pairs);
}
