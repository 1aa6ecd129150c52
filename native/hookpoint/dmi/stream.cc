#include "stream.h"

#include <algorithm>
#include <ctime>

namespace ring2::dmi {

uint64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * kSecond + static_cast<uint64_t>(time.tv_nsec);
}

bool Budget::take(uint64_t bytes) {
  uint64_t left = left_.load();
  while (left >= bytes) {
    if (left_.compare_exchange_weak(left, left - bytes)) return true;
  }
  return false;
}

bool Charge::add(uint64_t bytes) {
  const uint64_t free = std::min(bytes, free_);
  if (!budget_.take(bytes - free)) return false;
  free_ -= free;
  taken_ += bytes - free;
  return true;
}

uint64_t Stream::until(uint8_t *target, uint64_t bytes, uint64_t deadline) {
  uint64_t got = 0;
  while (got < bytes) {
    const uint64_t came = some(target + got, bytes - got, deadline);
    if (came == 0) break;
    got += came;
  }
  return got;
}

void Stream::discard(uint64_t bytes) {
  uint8_t scratch[16 * 1024];
  while (bytes > 0) bytes -= some(scratch, std::min<uint64_t>(bytes, sizeof scratch), kNever);
}

uint8_t Stream::byte() { return fixed<uint8_t>(); }

uint64_t Stream::varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const uint64_t part = byte();
    if (shift == 63 && part > 1) break;
    value |= (part & 0x7f) << shift;
    if (part < 0x80) return value;
  }
  throw Lost("a number of more than 64 bits");
}

uint64_t Stream::length() {
  const uint64_t bytes = varint();
  if (bytes > kStringBytesMax) throw Lost("a text of " + std::to_string(bytes) + " bytes");
  return bytes;
}

std::string Stream::text(uint64_t most, bool *whole) {
  const uint64_t bytes = length();
  std::string kept(std::min(bytes, most), '\0');
  all(kept.data(), kept.size());
  discard(bytes - kept.size());
  if (whole != nullptr) *whole = kept.size() == bytes;
  return kept;
}

uint64_t Plain::some(uint8_t *target, uint64_t bytes, uint64_t deadline) {
  if (bytes == 0) return 0;
  if (at_ == end_) {
    // What is large goes straight to where it is wanted.
    if (bytes >= kBufferBytes) return receive(target, bytes, deadline);
    at_ = end_ = 0;
    end_ = receive(buffer_.data(), kBufferBytes, deadline);
    if (end_ == 0) return 0;
  }
  const uint64_t taken = std::min(bytes, end_ - at_);
  std::memcpy(target, buffer_.data() + at_, taken);
  at_ += taken;
  return taken;
}

const uint8_t *Plain::peek(uint64_t bytes) {
  if (at_ + bytes > kBufferBytes) {
    std::memmove(buffer_.data(), buffer_.data() + at_, end_ - at_);
    end_ -= at_;
    at_ = 0;
  }
  while (end_ - at_ < bytes) end_ += receive(buffer_.data() + end_, kBufferBytes - end_, kNever);
  return buffer_.data() + at_;
}

uint64_t Memory::receive(uint8_t *target, uint64_t bytes, uint64_t) {
  if (left_ == 0) throw Gone("the bytes end here");
  const uint64_t taken = std::min(bytes, left_);
  std::memcpy(target, data_, taken);
  data_ += taken;
  left_ -= taken;
  return taken;
}

}  // namespace ring2::dmi
