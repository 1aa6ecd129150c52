// A mapped Ring² segment: the file, its header and its two rings. Shared by producer and consumer;
// knows nothing of records.
#ifndef RING2_SEGMENT_H
#define RING2_SEGMENT_H

#include <atomic>
#include <cstdint>
#include <string>

#include "ring2.h"

namespace ring2 {

inline constexpr const char *kDefaultDirectory = "/dev/shm";
inline constexpr const char *kFilePrefix = "ring2.";
inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint64_t kPayloadBytesMin = 65536;
inline constexpr uint64_t kPayloadBytesMax = uint64_t{1} << 40;
inline constexpr uint32_t kMetaSlotsMin = 64;
inline constexpr uint32_t kMetaSlotsMax = 1u << 20;
// Without a beat for this long a producer of another PID namespace counts as dead. Producers beat
// twice a second.
inline constexpr uint64_t kHeartbeatStaleNs = 10'000'000'000;

// Words that both processes touch are plain integers in the C layout and atomics here.
template <typename T>
std::atomic_ref<T> atomic(T &word) {
  static_assert(std::atomic_ref<T>::is_always_lock_free, "shared words need lock-free atomics");
  return std::atomic_ref<T>(word);
}

template <typename T>
T load_acquire(const T &word) {
  return atomic(const_cast<T &>(word)).load(std::memory_order_acquire);
}

template <typename T>
T load_relaxed(const T &word) {
  return atomic(const_cast<T &>(word)).load(std::memory_order_relaxed);
}

template <typename T>
void store_release(T &word, T value) {
  atomic(word).store(value, std::memory_order_release);
}

template <typename T>
void store_relaxed(T &word, T value) {
  atomic(word).store(value, std::memory_order_relaxed);
}

// For words with several writing threads in their one writing process (loss counters).
template <typename T>
void add_relaxed(T &word, T value) {
  atomic(word).fetch_add(value, std::memory_order_relaxed);
}

struct Segment {
  int file = -1;
  std::string path;
  uint8_t *base = nullptr;
  uint64_t mapped_bytes = 0;
  ring2_header *header = nullptr;
  ring2_descriptor *descriptors = nullptr;
  uint8_t *payload = nullptr;

  // Copied from the header once it has been validated: the mapping is shared with another process,
  // which could change it after the check.
  uint32_t meta_slots = 0;
  uint64_t payload_bytes = 0;

  ring2_descriptor &slot(uint64_t position) const {
    return descriptors[position & (meta_slots - 1)];
  }

  // Where the next payload goes: aligned, and contiguous, so past the end of the ring when it would
  // not fit before it. Producer and consumer compute it alike, which is how the consumer knows.
  uint64_t place(uint64_t payload_head, uint64_t bytes) const {
    uint64_t position = (payload_head + RING2_PAYLOAD_ALIGN - 1) & ~uint64_t{RING2_PAYLOAD_ALIGN - 1};
    const uint64_t offset = position % payload_bytes;
    if (offset + bytes > payload_bytes) position += payload_bytes - offset;
    return position;
  }
};

// Creates, fills and links a new segment file.
int segment_create(const ring2_producer_options &options, Segment *out);
// Opens and validates an existing one.
int segment_open(const char *path, bool writable, Segment *out);
void segment_unmap(Segment *segment);
// Removes the file if its name still means this segment.
void segment_unlink(const Segment &segment);

uint64_t clock_ns(int clock);
// Field 22 of /proc/PID/stat; 0 when there is no such process (or it is a zombie).
uint64_t process_start_ticks(uint32_t pid);
// The PID namespace of this process; 0 when /proc does not tell.
uint64_t pid_namespace();
// By pid and start time, or across PID namespaces (containers) by heartbeat.
bool producer_alive(const ring2_header &header);

}  // namespace ring2
#endif
