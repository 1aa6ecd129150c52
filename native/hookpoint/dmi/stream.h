// Bytes that are pulled: from a client's socket, out of compressed frames, or from memory.
//
// Decoding is written straight on, as if all bytes were there; a stream waits for them. Nothing
// here takes memory by a length that the peer names.
#ifndef RING2_DMI_STREAM_H
#define RING2_DMI_STREAM_H

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "bounds.h"

namespace ring2::dmi {

// Nobody can say any more where the next packet begins: the connection cannot go on.
struct Lost : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// This block cannot be read, and it is known (or can be found) where it ends.
struct Damaged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The peer has closed, or the bridge ends; in memory: not all bytes are there yet.
struct Gone : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The peer has begun something and does not end it in time.
struct Overdue : std::runtime_error {
  using std::runtime_error::runtime_error;
};

uint64_t now_ns();

// Heap memory that all connections share.
class Budget {
 public:
  explicit Budget(uint64_t bytes) : left_(bytes) {}
  bool take(uint64_t bytes);
  void give(uint64_t bytes) { left_.fetch_add(bytes); }

 private:
  std::atomic<uint64_t> left_;
};

// What one owner has of a budget, beyond what it has for nothing; given back with it.
class Charge {
 public:
  Charge(Budget &budget, uint64_t free) : budget_(budget), free_(free) {}
  ~Charge() { budget_.give(taken_); }
  Charge(const Charge &) = delete;
  Charge &operator=(const Charge &) = delete;
  bool add(uint64_t bytes);

 private:
  Budget &budget_;
  uint64_t free_;
  uint64_t taken_ = 0;
};

class Stream {
 public:
  virtual ~Stream() = default;
  // At least one and at most `bytes` bytes; 0 only when the deadline (now_ns) has passed.
  virtual uint64_t some(uint8_t *target, uint64_t bytes, uint64_t deadline) = 0;

  // As many of `bytes` as come before the deadline.
  uint64_t until(uint8_t *target, uint64_t bytes, uint64_t deadline);
  void all(void *target, uint64_t bytes) { until(static_cast<uint8_t *>(target), bytes, kNever); }
  void discard(uint64_t bytes);
  uint8_t byte();
  uint64_t varint();
  // The length of a text that follows, within kStringBytesMax.
  uint64_t length();
  // A text of which at most `most` bytes are kept; `whole` says whether that was all of it.
  std::string text(uint64_t most, bool *whole = nullptr);

  template <typename T>
  T fixed() {
    T value;
    all(&value, sizeof value);
    return value;
  }
};

// A stream with a small buffer in front of whatever receives.
class Plain : public Stream {
 public:
  uint64_t some(uint8_t *target, uint64_t bytes, uint64_t deadline) override;
  // The next `bytes` bytes (at most kBufferBytes), left where they are.
  const uint8_t *peek(uint64_t bytes);
  uint64_t at_hand() const { return end_ - at_; }

 protected:
  virtual uint64_t receive(uint8_t *target, uint64_t bytes, uint64_t deadline) = 0;

 private:
  std::array<uint8_t, kBufferBytes> buffer_;
  uint64_t at_ = 0;
  uint64_t end_ = 0;
};

class Memory : public Plain {
 public:
  Memory(const uint8_t *data, uint64_t bytes) : data_(data), left_(bytes) {}
  // How many of the bytes have been read.
  uint64_t left() const { return left_ + at_hand(); }

 protected:
  uint64_t receive(uint8_t *target, uint64_t bytes, uint64_t deadline) override;

 private:
  const uint8_t *data_;
  uint64_t left_;
};

}  // namespace ring2::dmi
#endif
