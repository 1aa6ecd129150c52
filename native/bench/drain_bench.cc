// What an exporter does with full rings: drain, cut into slices, norm statistics, release; against a
// plain read of the same payload bytes, in alternating pairs on one core.
//
// Prints one JSON line for each dtype: {name, unit, ours, peers, ratio}.
// usage: drain_bench [pairs]
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "pairs.h"
#include "ring2.h"
#include "ring2_hooks.h"

namespace {

constexpr uint64_t kPayloadBytes = uint64_t{256} << 20;
constexpr uint32_t kTokens = 16;
constexpr uint32_t kHidden = 4096;

struct Ring {
  ring2_producer *producer = nullptr;
  ring2_consumer *consumer = nullptr;
  std::vector<ring2_slice> slices = std::vector<ring2_slice>(4096);
  int64_t step = 0;

  explicit Ring(const char *name) {
    ring2_producer_options options = {nullptr, name, kPayloadBytes, 1u << 15, 0, 0};
    if (ring2_producer_open(&options, &producer) != RING2_OK) fail();
    const std::string path = std::string("/dev/shm/ring2.") + name;
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

  // Fills nine tenths of the ring with steps of one request; returns the payload bytes written.
  uint64_t fill(uint32_t dtype, const void *data) {
    const uint64_t bytes = uint64_t{kTokens} * kHidden * ring2_dtype_bytes(dtype);
    uint64_t written = 0;
    while (written < kPayloadBytes / 10 * 9) {
      ring2_step_header header = {};
      header.step = step;
      header.row_count = 1;
      header.columns = kTokens;
      ring2_step_row row = {};
      row.request_key = 1;
      row.token_end = kTokens;
      ring2_tensor tensor = {};
      tensor.hook = RING2_HOOK_RESID_PRE;
      tensor.dtype = dtype;
      tensor.ndim = 3;
      tensor.step = step;
      const int64_t dims[] = {1, kTokens, kHidden};
      const int64_t strides[] = {int64_t{kTokens} * kHidden, kHidden, 1};
      for (int axis = 0; axis < 3; ++axis) {
        tensor.dims[axis] = dims[axis];
        tensor.strides[axis] = strides[axis];
      }
      if (ring2_write_step(producer, &header, &row) != RING2_OK) fail();
      if (ring2_write_tensor(producer, &tensor, data) != RING2_OK) fail();
      written += bytes;
      ++step;
    }
    return written;
  }

  // The exporter's work, without the store: every record drained, measured, released.
  void drain_all(ring2_fold *fold) {
    ring2_drain_result result;
    do {
      if (ring2_drain(consumer, slices.data(), slices.size(), uint64_t{64} << 20, &result) !=
          RING2_OK) {
        fail();
      }
      for (uint64_t i = 0; i < result.slices; ++i) slices[i].action = RING2_ACTION_STATS;
      if (ring2_measure(consumer, fold, nullptr, slices.data(), result.slices) != RING2_OK) fail();
      if (ring2_release(consumer, result.next_position) != RING2_OK) fail();
    } while (result.next_position < result.head_position);
  }
};

void bench(const char *dtype_name, uint32_t dtype, size_t pairs) {
  Ring ring("bench-drain");
  ring2_fold *fold = nullptr;
  if (ring2_fold_create(&fold) != RING2_OK) Ring::fail();
  std::vector<uint8_t> data(uint64_t{kTokens} * kHidden * ring2_dtype_bytes(dtype));
  std::mt19937 random(1);
  // Small finite numbers in every dtype: a sign, a middling exponent, random fractions.
  for (size_t at = 0; at < data.size(); ++at) data[at] = static_cast<uint8_t>(random() & 0xff);
  const size_t element = ring2_dtype_bytes(dtype);
  for (size_t at = element - 1; at < data.size(); at += element) {
    data[at] = static_cast<uint8_t>((data[at] & 0x80) | 0x38);
  }
  // Touches every page of the ring before anything is timed.
  ring.fill(dtype, data.data());
  ring.drain_all(fold);
  ring.fill(dtype, data.data());
  ring.drain_all(fold);
  const auto *payload = static_cast<const uint8_t *>(ring2_consumer_payload(ring.consumer));
  std::vector<double> ours;
  std::vector<double> plain;
  for (size_t pair = 0; pair < pairs; ++pair) {
    const uint64_t bytes = ring.fill(dtype, data.data());
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

}  // namespace

int main(int argc, char **argv) {
  const size_t pairs = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 15;
  bench("float32", RING2_DTYPE_FLOAT32, pairs);
  bench("float16", RING2_DTYPE_FLOAT16, pairs);
  bench("bfloat16", RING2_DTYPE_BFLOAT16, pairs);
}
