// Measuring two things in alternating pairs: what counts is the ratio of each pair, because the
// machine may be shared; rates are medians. Also the peer that most figures here have: a plain read.
#ifndef RING2_BENCH_PAIRS_H
#define RING2_BENCH_PAIRS_H

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "ring2.h"

inline double seconds_of(const std::function<void()> &work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline volatile uint64_t sink;

// Reads every byte once into four independent vectors, so that the loads are the limit.
typedef uint64_t Words16 __attribute__((vector_size(16)));
typedef uint64_t Words32 __attribute__((vector_size(32)));
typedef uint64_t Words64 __attribute__((vector_size(64)));

template <typename Words>
inline __attribute__((always_inline)) void read_loop(const uint8_t *data, size_t bytes) {
  constexpr size_t kBytes = sizeof(Words);
  Words sums[4] = {};
  for (size_t at = 0; at + 4 * kBytes <= bytes; at += 4 * kBytes) {
    for (size_t lane = 0; lane < 4; ++lane) {
      Words words;
      std::memcpy(&words, data + at + lane * kBytes, kBytes);
      sums[lane] ^= words;
    }
  }
  const Words total = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  uint64_t words[kBytes / 8];
  std::memcpy(words, &total, kBytes);
  for (const uint64_t word : words) sink = sink ^ word;
}

inline void read_portable(const uint8_t *data, size_t bytes) { read_loop<Words16>(data, bytes); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) inline void read_avx2(const uint8_t *data, size_t bytes) {
  read_loop<Words32>(data, bytes);
}
__attribute__((target("avx512f"))) inline void read_avx512(const uint8_t *data, size_t bytes) {
  read_loop<Words64>(data, bytes);
}
#endif

// With the widest vectors that the kernels use here.
inline void plain_read(const uint8_t *data, size_t bytes) {
#if defined(__x86_64__)
  static const std::string isa = ring2_isa();
  if (isa == "avx512") return read_avx512(data, bytes);
  if (isa == "avx2") return read_avx2(data, bytes);
#endif
  read_portable(data, bytes);
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Rates of both sides, pair by pair, as one JSON line.
inline void print_pairs(const std::string &name, const char *unit, const char *peer_name,
                        const std::vector<double> &ours, const std::vector<double> &peer) {
  std::vector<double> ratios;
  for (size_t pair = 0; pair < ours.size(); ++pair) ratios.push_back(ours[pair] / peer[pair]);
  std::printf(
      "{\"name\":\"%s\",\"unit\":\"%s\",\"ours\":%.4g,\"peers\":{\"%s\":%.4g},\"isa\":\"%s\","
      "\"ratio\":{\"vs\":\"%s\",\"median\":%.4g,\"min\":%.4g,\"max\":%.4g,\"pairs\":%zu}}\n",
      name.c_str(), unit, median(ours), peer_name, median(peer), ring2_isa(), peer_name,
      median(ratios), *std::min_element(ratios.begin(), ratios.end()),
      *std::max_element(ratios.begin(), ratios.end()), ratios.size());
  std::fflush(stdout);
}

// Runs ours and the peer in turn, each first in every other pair, and prints their rates.
inline void run_pairs(const std::string &name, const char *unit, const char *peer_name,
                      double amount, double peer_amount, size_t pairs,
                      const std::function<void()> &ours, const std::function<void()> &peer) {
  std::vector<double> rates;
  std::vector<double> peer_rates;
  for (size_t pair = 0; pair < pairs; ++pair) {
    const bool ours_first = pair % 2 == 0;
    const double first = seconds_of(ours_first ? ours : peer);
    const double second = seconds_of(ours_first ? peer : ours);
    rates.push_back(amount / (ours_first ? first : second));
    peer_rates.push_back(peer_amount / (ours_first ? second : first));
  }
  print_pairs(name, unit, peer_name, rates, peer_rates);
}

#endif
