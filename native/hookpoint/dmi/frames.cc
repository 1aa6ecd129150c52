#include "frames.h"

#include <algorithm>

#include "city_hash.h"
#include "codec_lz4.h"

#ifdef RING2_HAVE_ZSTD
#include <zstd.h>
#endif

namespace ring2::dmi {
namespace {

constexpr uint8_t kStored = 0x02, kLz4 = 0x82, kZstd = 0x90;
constexpr uint64_t kChecksumBytes = 16, kHeadBytes = 9;

struct Head {
  uint8_t method;
  uint64_t packed;   // with these nine bytes
  uint64_t content;
};

Head head_at(const uint8_t *at) {
  uint32_t packed, content;
  std::memcpy(&packed, at + 1, sizeof packed);
  std::memcpy(&content, at + 5, sizeof content);
  return {at[0], packed, content};
}

bool plausible(const Head &head) {
  if (head.method != kStored && head.method != kLz4 && head.method != kZstd) return false;
  if (head.packed <= kHeadBytes || head.packed > kFrameBytesMax) return false;
  if (head.content > kFrameBytesMax) return false;
  return head.method != kStored || head.packed == head.content + kHeadBytes;
}

const char *expand(const Head &head, const uint8_t *from, uint64_t bytes, uint8_t *to) {
  if (head.method == kStored) {
    std::memcpy(to, from, bytes);
    return nullptr;
  }
  if (head.method == kLz4) {
    return decode_lz4_block(from, bytes, to, head.content) ? nullptr : "a damaged LZ4 frame";
  }
#ifdef RING2_HAVE_ZSTD
  const size_t written = ZSTD_decompress(to, head.content, from, bytes);
  return written == head.content ? nullptr : "a damaged ZSTD frame";
#else
  return "a ZSTD frame, and this program was built without libzstd";
#endif
}

}  // namespace

bool Frames::reserve(uint64_t packed_bytes, uint64_t content_bytes) {
  const uint64_t wanted = packed_bytes + content_bytes;
  if (wanted > kFrameKeptBytes) {
    if (wanted > borrowed_) {
      if (!budget_.take(wanted - borrowed_)) return false;
      borrowed_ = wanted;
    }
  }
  packed_.resize(packed_bytes);
  content_.resize(content_bytes);
  return true;
}

void Frames::shrink() {
  if (borrowed_ == 0) return;
  packed_ = {};
  content_ = {};
  at_ = content_bytes_ = 0;
  budget_.give(borrowed_);
  borrowed_ = 0;
}

// What comes before the deadline is kept, so that a later call goes on.
bool Frames::load(uint64_t deadline) {
  constexpr uint64_t kHeader = kChecksumBytes + kHeadBytes;
  if (header_have_ < kHeader) {
    header_have_ += under_.until(header_ + header_have_, kHeader - header_have_, deadline);
    if (header_have_ < kHeader) return false;
    const Head head = head_at(header_ + kChecksumBytes);
    if (!plausible(head)) throw Lost("no compressed frame where one is due");
    content_bytes_ = at_ = 0;
    packed_have_ = kHeadBytes;
    packed_bytes_ = head.packed;
    if (!reserve(head.packed, head.content)) {
      under_.discard(head.packed - kHeadBytes);
      header_have_ = 0;
      throw Damaged("no memory for a frame of " + std::to_string(head.content) + " bytes");
    }
    std::memcpy(packed_.data(), header_ + kChecksumBytes, kHeadBytes);
  }
  packed_have_ +=
      under_.until(packed_.data() + packed_have_, packed_bytes_ - packed_have_, deadline);
  if (packed_have_ < packed_bytes_) return false;
  header_have_ = 0;
  open();
  return true;
}

void Frames::open() {
  Hash128 said;
  std::memcpy(&said, header_, sizeof said);
  if (!(city_hash_128(packed_.data(), packed_bytes_) == said)) {
    throw Damaged("a frame with a wrong checksum");
  }
  const Head head = head_at(packed_.data());
  const char *const fault =
      expand(head, packed_.data() + kHeadBytes, packed_bytes_ - kHeadBytes, content_.data());
  if (fault != nullptr) throw Damaged(fault);
  content_bytes_ = head.content;
  at_ = 0;
}

uint64_t Frames::some(uint8_t *target, uint64_t bytes, uint64_t deadline) {
  if (bytes == 0) return 0;
  while (at_ == content_bytes_) {
    if (header_have_ == 0) shrink();
    if (!load(deadline)) return 0;
  }
  const uint64_t taken = std::min(bytes, content_bytes_ - at_);
  std::memcpy(target, content_.data() + at_, taken);
  at_ += taken;
  return taken;
}

void Frames::resume() {
  at_ = content_bytes_ = 0;
  while (true) {
    // A Data packet is its number, an empty name of a table, and a frame. The block that ends an
    // INSERT is one, so that there are always bytes to look at.
    constexpr uint64_t kLook = 2 + kChecksumBytes + kHeadBytes;
    const uint8_t *const next = under_.peek(kLook);
    const bool packet = next[0] == 2 && next[1] == 0;
    if (packet && plausible(head_at(next + 2 + kChecksumBytes))) return;
    const Head head = head_at(next + kChecksumBytes);
    if (!plausible(head)) throw Lost("neither a frame nor a packet after a damaged frame");
    under_.discard(kChecksumBytes + head.packed);
  }
}

std::string as_frame(const std::string &text) {
  // One run of literals is the whole of an LZ4 block.
  std::string packed(kHeadBytes, '\0');
  packed[0] = static_cast<char>(kLz4);
  packed += static_cast<char>(std::min<size_t>(text.size(), 15) << 4);
  if (text.size() >= 15) {
    size_t left = text.size() - 15;
    for (; left >= 255; left -= 255) packed += static_cast<char>(255);
    packed += static_cast<char>(left);
  }
  packed += text;
  const uint32_t sizes[2] = {static_cast<uint32_t>(packed.size()),
                             static_cast<uint32_t>(text.size())};
  std::memcpy(packed.data() + 1, sizes, sizeof sizes);
  const Hash128 hash =
      city_hash_128(reinterpret_cast<const uint8_t *>(packed.data()), packed.size());
  return std::string(reinterpret_cast<const char *>(&hash), sizeof hash) + packed;
}

}  // namespace ring2::dmi
