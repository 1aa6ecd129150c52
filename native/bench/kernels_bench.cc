// Speed of the statistics kernels, one core, against a plain read loop over the same bytes.
//
// Prints one JSON line for each figure: {name, unit, ours, peers, ratio}. "+ group" in a name: with
// one group of statistics (ring2_group) on; otherwise all of them are off.
// usage: kernels_bench [megabytes] [pairs]
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "pairs.h"
#include "ring2_hooks.h"

namespace {

constexpr size_t kPairsMin = 9;

struct Figure {
  std::string name;
  const char *unit;
  double amount;  // of the unit, done by one run of ours
  double peer_amount;
};

void report(const Figure &figure, size_t pairs, const std::function<void()> &ours,
            const std::function<void()> &peer, const char *peer_name = "plain read") {
  ours();
  peer();
  run_pairs(figure.name, figure.unit, peer_name, figure.amount, figure.peer_amount, pairs, ours,
            peer);
}

struct Dtype {
  uint32_t id;
  const char *name;
  size_t bytes;
};
constexpr Dtype kDtypes[] = {{RING2_DTYPE_FLOAT32, "fp32", 4},
                             {RING2_DTYPE_FLOAT16, "fp16", 2},
                             {RING2_DTYPE_BFLOAT16, "bf16", 2}};

void store(uint8_t *at, const Dtype &dtype, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (dtype.id == RING2_DTYPE_FLOAT32) {
    std::memcpy(at, &value, 4);
    return;
  }
  uint16_t code = static_cast<uint16_t>(bits >> 16);
  if (dtype.id == RING2_DTYPE_FLOAT16) {
    const int exponent = static_cast<int>(bits >> 23 & 0xff) - 127 + 15;
    const uint32_t magnitude =
        exponent <= 0 ? 0 : static_cast<uint32_t>(exponent) << 10 | (bits >> 13 & 0x3ff);
    code = static_cast<uint16_t>(bits >> 16 & 0x8000) | static_cast<uint16_t>(magnitude);
  }
  std::memcpy(at, &code, 2);
}

// A buffer of random values, repeated: their range matters to a kernel, not what they are.
std::vector<uint8_t> filled(size_t bytes, const Dtype &dtype, const std::function<float()> &next) {
  std::vector<uint8_t> data(bytes);
  const size_t distinct = std::min(bytes, size_t{1} << 20) / dtype.bytes * dtype.bytes;
  for (size_t at = 0; at < distinct; at += dtype.bytes) store(data.data() + at, dtype, next());
  for (size_t at = distinct; at < bytes; at += distinct) {
    std::memcpy(data.data() + at, data.data(), std::min(distinct, bytes - at));
  }
  return data;
}

ring2_slice slice_of(const Dtype &dtype, uint32_t hook, std::vector<uint32_t> dims) {
  ring2_slice slice = {};
  slice.dtype = dtype.id;
  slice.hook = hook;
  slice.ndim = static_cast<uint32_t>(dims.size());
  slice.action = RING2_ACTION_STATS;
  uint64_t stride = 1;
  for (size_t axis = dims.size(); axis-- > 0;) {
    slice.dims[axis] = dims[axis];
    slice.strides[axis] = stride;
    stride *= dims[axis];
  }
  return slice;
}

void measure(const uint8_t *data, ring2_slice slice) {
  if (ring2_measure_memory(data, SIZE_MAX, nullptr, nullptr, &slice) != RING2_OK) {
    std::fprintf(stderr, "kernels_bench: %s\n", ring2_last_error());
    std::exit(1);
  }
  sink = static_cast<uint64_t>(slice.stats[RING2_STAT_ENTROPY_MEAN] + slice.stats[0]);
}

std::mt19937 generator(1);

void norms(size_t bytes, size_t pairs, uint32_t width, uint32_t action) {
  std::normal_distribution<float> normal(0, 1);
  for (const Dtype &dtype : kDtypes) {
    const auto data = filled(bytes, dtype, [&] { return normal(generator); });
    const uint32_t rows = static_cast<uint32_t>(bytes / dtype.bytes / width);
    ring2_slice slice = slice_of(dtype, RING2_HOOK_RESID_PRE, {rows, width});
    slice.action = action;
    const double amount = static_cast<double>(bytes) / 1e9;
    const char *what = action == RING2_ACTION_TENSOR ? "moments+crc " : "moments ";
    report({what + std::string(dtype.name) + " width " + std::to_string(width), "GB/s", amount,
            amount},
           pairs, [&] { measure(data.data(), slice); }, [&] { plain_read(data.data(), bytes); });
  }
}

void logits(size_t bytes, size_t pairs) {
  constexpr uint32_t kVocabulary = 152064;
  std::normal_distribution<float> normal(0, 4);
  for (const Dtype &dtype : kDtypes) {
    const auto data = filled(bytes, dtype, [&] { return normal(generator); });
    const uint32_t rows = static_cast<uint32_t>(bytes / dtype.bytes / kVocabulary);
    const ring2_slice slice = slice_of(dtype, RING2_HOOK_FINAL_LOGITS, {rows, kVocabulary});
    const double elements = static_cast<double>(rows) * kVocabulary / 1e9;
    report({"logits " + std::string(dtype.name), "Gelement/s", elements,
            static_cast<double>(bytes) / static_cast<double>(dtype.bytes) / 1e9},
           pairs, [&] { measure(data.data(), slice); }, [&] { plain_read(data.data(), bytes); });
  }
}

void outliers(size_t bytes, size_t pairs, uint32_t rows, uint32_t width) {
  std::normal_distribution<float> normal(0, 1);
  for (const Dtype &dtype : kDtypes) {
    const auto data = filled(bytes, dtype, [&] { return normal(generator); });
    const size_t slice_bytes = std::min(bytes, size_t{rows} * width * dtype.bytes);
    const uint32_t whole_rows = static_cast<uint32_t>(slice_bytes / width / dtype.bytes);
    ring2_slice slice = slice_of(dtype, RING2_HOOK_RESID_PRE, {whole_rows, width});
    slice.groups = RING2_GROUP_OUTLIERS;
    const size_t slices = bytes / slice_bytes;
    const double amount = static_cast<double>(slices * slice_bytes) / 1e9;
    report({"moments + outliers " + std::string(dtype.name) + " " + std::to_string(slice.dims[0]) +
                " x " + std::to_string(width),
            "GB/s", amount, amount},
           pairs,
           [&] {
             for (size_t i = 0; i < slices; ++i) measure(data.data() + i * slice_bytes, slice);
           },
           [&] { plain_read(data.data(), slices * slice_bytes); });
  }
}

void key_values(size_t bytes, size_t pairs, uint32_t groups) {
  constexpr uint32_t kHeads = 8, kWidth = 128, kTokens = 1024;
  std::normal_distribution<float> normal(0, 1);
  const Dtype &dtype = kDtypes[2];
  const auto data = filled(bytes, dtype, [&] { return normal(generator); });
  ring2_slice slice = slice_of(dtype, RING2_HOOK_K, {kTokens, kHeads, kWidth});
  slice.groups = groups;
  const size_t slice_bytes = size_t{kTokens} * kHeads * kWidth * dtype.bytes;
  const size_t slices = bytes / slice_bytes;
  const double amount = static_cast<double>(slices * slice_bytes) / 1e9;
  report({groups != 0 ? "keys + kv bf16" : "keys bf16", "GB/s", amount, amount}, pairs,
         [&] {
           for (size_t i = 0; i < slices; ++i) measure(data.data() + i * slice_bytes, slice);
         },
         [&] { plain_read(data.data(), slices * slice_bytes); });
}

// A prefill: half of every row lies behind the query and is 0.
void prefill_pattern(size_t bytes, size_t pairs, uint32_t tokens, uint32_t groups) {
  const Dtype &dtype = kDtypes[2];
  std::vector<uint8_t> data(bytes);
  const size_t rows = bytes / dtype.bytes / tokens;
  for (size_t row = 0; row < rows; ++row) {
    const size_t visible = row % tokens + 1;
    for (size_t key = 0; key < visible; ++key) {
      store(data.data() + (row * tokens + key) * dtype.bytes, dtype,
            1 / static_cast<float>(visible));
    }
  }
  const uint32_t heads = static_cast<uint32_t>(rows / tokens);
  ring2_slice slice = slice_of(dtype, RING2_HOOK_PATTERN, {heads, tokens, tokens});
  slice.groups = groups;
  const double elements = static_cast<double>(heads) * tokens * tokens / 1e9;
  const std::string shape = " bf16 prefill " + std::to_string(tokens);
  report({(groups != 0 ? "pattern + attention" : "pattern") + shape, "Gelement/s", elements,
          elements},
         pairs, [&] { measure(data.data(), slice); },
         [&] { plain_read(data.data(), heads * size_t{tokens} * tokens * dtype.bytes); });
}

// Decode rows: every key is visible, so every element costs its logarithm.
void pattern(size_t bytes, size_t pairs, uint32_t keys, uint32_t groups) {
  std::exponential_distribution<float> weight(1);
  for (const Dtype &dtype : kDtypes) {
    const auto data =
        filled(bytes, dtype, [&] { return weight(generator) / static_cast<float>(keys); });
    const uint32_t heads = static_cast<uint32_t>(bytes / dtype.bytes / keys);
    ring2_slice slice = slice_of(dtype, RING2_HOOK_PATTERN, {heads, 1, keys});
    slice.token_start = static_cast<int32_t>(keys) - 1;
    slice.phase = RING2_PHASE_DECODE;
    slice.prompt_tokens = static_cast<int32_t>(keys / 2);
    slice.groups = groups;
    const char *what = groups != 0 ? "pattern + attention " : "pattern ";
    const double elements = static_cast<double>(heads) * keys / 1e9;
    report({what + std::string(dtype.name) + " keys " + std::to_string(keys), "Gelement/s",
            elements, static_cast<double>(bytes) / static_cast<double>(dtype.bytes) / 1e9},
           pairs, [&] { measure(data.data(), slice); }, [&] { plain_read(data.data(), bytes); });
  }
}

void folding(size_t pairs) {
  constexpr size_t kSamples = 1 << 20;
  constexpr size_t kBatch = 512;
  std::lognormal_distribution<double> spread(0, 1);
  std::vector<double> samples(kSamples);
  for (double &sample : samples) sample = spread(generator);
  ring2_fold *fold = nullptr;
  if (ring2_fold_create(&fold) != RING2_OK) std::exit(1);
  const auto ours = [&] {
    for (size_t at = 0; at < kSamples; at += kBatch) {
      ring2_fold_record(fold, RING2_SIGNAL_L2_NORM, 0, 0, 0, samples.data() + at, kBatch, 1, 1);
    }
  };
  // The peer is libm's logarithm alone, the least that an index by formula costs.
  const auto logarithm = [&] {
    double sum = 0;
    for (const double sample : samples) sum += std::ceil(std::log2(sample) * 32);
    sink = static_cast<uint64_t>(sum);
  };
  const double amount = kSamples / 1e6;
  report({"folded samples", "Msample/s", amount, amount}, pairs, ours, logarithm, "log2 alone");
  ring2_fold_destroy(fold);
}

void checksums(size_t bytes, size_t pairs) {
  const auto data = filled(bytes, kDtypes[0], [] { return static_cast<float>(generator()); });
  const double amount = static_cast<double>(bytes) / 1e9;
  report({"crc32c", "GB/s", amount, amount}, pairs,
         [&] { sink = ring2_crc32c(data.data(), bytes, 0); },
         [&] { plain_read(data.data(), bytes); });
}

}  // namespace

int main(int count, char **arguments) {
  const size_t bytes = (count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 256) << 20;
  const size_t pairs =
      std::max(kPairsMin, count > 2 ? size_t{std::strtoull(arguments[2], nullptr, 10)} : 0);
  if (bytes == 0) {
    std::fprintf(stderr, "usage: kernels_bench [megabytes >= 1] [pairs >= %zu]\n", kPairsMin);
    return 2;
  }
  norms(bytes, pairs, 4096, RING2_ACTION_STATS);
  norms(bytes, pairs, 576, RING2_ACTION_STATS);
  norms(bytes, pairs, 64, RING2_ACTION_STATS);
  norms(bytes, pairs, 576, RING2_ACTION_TENSOR);
  logits(bytes, pairs);
  outliers(bytes, pairs, UINT32_MAX, 4096);
  outliers(bytes, pairs, 512, 576);
  outliers(bytes, pairs, 1, 576);
  key_values(bytes, pairs, 0);
  key_values(bytes, pairs, RING2_GROUP_KV);
  for (const uint32_t groups : {0u, static_cast<uint32_t>(RING2_GROUP_ATTENTION)}) {
    pattern(bytes, pairs, 4096, groups);
    pattern(bytes, pairs, 128, groups);
    prefill_pattern(bytes, pairs, 1024, groups);
    prefill_pattern(bytes, pairs, 128, groups);
  }
  folding(pairs);
  checksums(bytes, pairs);
  return 0;
}
