// Streams of two- or three-bit numbers, eight at a time: number i lies at bit i * width of the
// stream, least significant bit first. Widths from 1 to 7 work. Little-endian machines only.
#ifndef RING2_CODEC_BITS_H
#define RING2_CODEC_BITS_H

#include <cstdint>
#include <cstring>

namespace ring2 {

inline uint64_t packed_bytes(uint64_t count, unsigned width) { return (count * width + 7) / 8; }

// Eight bytes, each below 2^width, become 8 * width bits: pairs, then fours, then all.
inline uint64_t pack_eight(uint64_t bytes, unsigned width) {
  const uint64_t two = ((uint64_t{1} << 2 * width) - 1) * 0x0001000100010001u;
  const uint64_t four = ((uint64_t{1} << 4 * width) - 1) * 0x0000000100000001u;
  uint64_t bits = (bytes | bytes >> (8 - width)) & two;
  bits = (bits | bits >> (16 - 2 * width)) & four;
  return (bits | bits >> (32 - 4 * width)) & ((uint64_t{1} << 8 * width) - 1);
}

inline uint64_t unpack_eight(uint64_t bits, unsigned width) {
  const uint64_t one = ((uint64_t{1} << width) - 1) * 0x0101010101010101u;
  const uint64_t two = ((uint64_t{1} << 2 * width) - 1) * 0x0001000100010001u;
  const uint64_t four = ((uint64_t{1} << 4 * width) - 1) * 0x0000000100000001u;
  bits &= (uint64_t{1} << 8 * width) - 1;
  bits = (bits | bits << (32 - 4 * width)) & four;
  bits = (bits | bits << (16 - 2 * width)) & two;
  return (bits | bits << (8 - width)) & one;
}

// Takes numbers in runs of any length. `out` has room for packed_bytes of all of them.
class BitPacker {
 public:
  BitPacker(uint8_t *out, unsigned width) : out_(out), width_(width) {}

  void put(const uint8_t *numbers, uint64_t count) {
    while (count > 0) {
      const uint64_t taken = count < 8 - held_ ? count : 8 - held_;
      std::memcpy(waiting_ + held_, numbers, taken);
      held_ += static_cast<unsigned>(taken);
      numbers += taken;
      count -= taken;
      if (held_ == 8) flush();
    }
  }

  void finish() {
    if (held_ == 0) return;
    std::memset(waiting_ + held_, 0, 8 - held_);
    flush();
  }

 private:
  void flush() {
    uint64_t bytes;
    std::memcpy(&bytes, waiting_, 8);
    const uint64_t bits = pack_eight(bytes, width_);
    std::memcpy(out_, &bits, packed_bytes(held_, width_));
    out_ += width_;
    held_ = 0;
  }

  uint8_t *out_;
  unsigned width_;
  unsigned held_ = 0;
  uint8_t waiting_[8] = {};
};

// Gives them back in runs of any length; `bytes` are read and never passed.
class BitUnpacker {
 public:
  BitUnpacker(const uint8_t *from, uint64_t bytes, unsigned width)
      : from_(from), bytes_(bytes), width_(width) {}

  void take(uint8_t *numbers, uint64_t count) {
    while (count > 0) {
      if (used_ == 8) refill();
      const uint64_t taken = count < 8 - used_ ? count : 8 - used_;
      std::memcpy(numbers, ready_ + used_, taken);
      used_ += static_cast<unsigned>(taken);
      numbers += taken;
      count -= taken;
    }
  }

 private:
  void refill() {
    uint64_t bits = 0;
    const uint64_t read = bytes_ < width_ ? bytes_ : width_;
    std::memcpy(&bits, from_, read);
    from_ += read;
    bytes_ -= read;
    const uint64_t unpacked = unpack_eight(bits, width_);
    std::memcpy(ready_, &unpacked, 8);
    used_ = 0;
  }

  const uint8_t *from_;
  uint64_t bytes_;
  unsigned width_;
  unsigned used_ = 8;
  uint8_t ready_[8] = {};
};

}  // namespace ring2
#endif
