// Reads LZ4 frames, as captures of other tools hold them. Nothing here writes LZ4.
//
// Source: "LZ4 Frame Format Description" 1.6.4 and "LZ4 Block Format Description", lz4/doc in the
// LZ4 repository; XXH32 after the xxHash specification 0.1.1. Every length is checked against what
// is left before it is used, and all checksums that a frame has are verified. No dictionaries.

#include <cstdint>
#include <cstring>

#include "codec_lz4.h"
#include "error.h"
#include "ring2_codec.h"

namespace ring2 {
namespace {

constexpr uint32_t kMagic = 0x184d2204u;
constexpr uint32_t kPrimes[] = {2654435761u, 2246822519u, 3266489917u, 668265263u, 374761393u};

uint32_t rotate(uint32_t value, unsigned by) { return value << by | value >> (32 - by); }

uint32_t word_at(const uint8_t *at) {
  uint32_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

uint32_t xxh32(const uint8_t *data, uint64_t bytes) {
  const uint8_t *const end = data + bytes;
  uint32_t hash = kPrimes[4];
  if (bytes >= 16) {
    uint32_t lanes[4] = {kPrimes[0] + kPrimes[1], kPrimes[1], 0, 0u - kPrimes[0]};
    for (; end - data >= 16; data += 16) {
      for (unsigned lane = 0; lane < 4; ++lane) {
        lanes[lane] = rotate(lanes[lane] + word_at(data + 4 * lane) * kPrimes[1], 13) * kPrimes[0];
      }
    }
    hash = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
  }
  hash += static_cast<uint32_t>(bytes);
  for (; end - data >= 4; data += 4) {
    hash = rotate(hash + word_at(data) * kPrimes[2], 17) * kPrimes[3];
  }
  for (; data < end; ++data) hash = rotate(hash + *data * kPrimes[4], 11) * kPrimes[0];
  hash = (hash ^ hash >> 15) * kPrimes[1];
  hash = (hash ^ hash >> 13) * kPrimes[2];
  return hash ^ hash >> 16;
}

int damaged(const char *what) {
  return ring2_set_error(RING2_E_ARGUMENT, "expected an intact LZ4 frame, got %s", what);
}

struct Input {
  const uint8_t *at;
  uint64_t left;

  const uint8_t *take(uint64_t bytes) {
    if (bytes > left) return nullptr;
    const uint8_t *const taken = at;
    at += bytes;
    left -= bytes;
    return taken;
  }
};

// Where the content goes; with no buffer it is only counted, which needs no content.
struct Output {
  uint8_t *buffer;
  uint64_t room;
  uint64_t written;
};

// A length of 15 is continued by bytes until one is not 255. False: the input ends first.
bool extend(Input &input, uint64_t *length) {
  for (uint8_t byte = 255; byte == 255;) {
    const uint8_t *const next = input.take(1);
    if (next == nullptr) return false;
    byte = *next;
    *length += byte;
  }
  return true;
}

int copy_literals(Input &input, uint64_t length, Output &output) {
  const uint8_t *const from = input.take(length);
  if (from == nullptr) return damaged("literals beyond its end");
  if (length > output.room - output.written) return damaged("more content than there is room for");
  if (output.buffer != nullptr && length > 0) {
    std::memcpy(output.buffer + output.written, from, length);
  }
  output.written += length;
  return RING2_OK;
}

int copy_match(uint64_t offset, uint64_t length, uint64_t reachable, Output &output) {
  if (offset == 0 || offset > reachable) return damaged("a match before the beginning");
  if (length > output.room - output.written) return damaged("more content than there is room for");
  if (output.buffer != nullptr) {
    uint8_t *const to = output.buffer + output.written;
    if (offset >= length) {
      std::memcpy(to, to - offset, length);
    } else {
      // The match reaches into what it writes: byte by byte, so that it repeats.
      for (uint64_t i = 0; i < length; ++i) to[i] = *(to + i - offset);
    }
  }
  output.written += length;
  return RING2_OK;
}

// `floor`: content before this position is out of a match's reach.
int decode_block(Input input, uint64_t floor, Output &output) {
  while (true) {
    const uint8_t *const token = input.take(1);
    if (token == nullptr) return damaged("a block without a last literal run");
    uint64_t literals = *token >> 4;
    if (literals == 15 && !extend(input, &literals)) return damaged("an unfinished length");
    const int copied = copy_literals(input, literals, output);
    if (copied != RING2_OK) return copied;
    if (input.left == 0) return RING2_OK;  // the last sequence has no match
    const uint8_t *const offset = input.take(2);
    if (offset == nullptr) return damaged("an unfinished match");
    uint64_t length = *token & 15u;
    if (length == 15 && !extend(input, &length)) return damaged("an unfinished length");
    const int matched = copy_match(static_cast<uint64_t>(offset[0] | offset[1] << 8), length + 4,
                                   output.written - floor, output);
    if (matched != RING2_OK) return matched;
  }
}

struct Descriptor {
  bool linked;
  bool block_checksums;
  bool content_checksum;
  bool has_size;
  uint64_t content_bytes;
  uint64_t block_max;
};

int read_descriptor(Input &input, Descriptor *out) {
  const uint8_t *const magic = input.take(4);
  if (magic == nullptr || word_at(magic) != kMagic) return damaged("no frame");
  const uint8_t *const start = input.take(2);
  if (start == nullptr) return damaged("an unfinished header");
  const uint8_t flags = start[0], sizes = start[1];
  if (flags >> 6 != 1 || (flags & 2) != 0) return damaged("an unknown version");
  if ((flags & 1) != 0) return damaged("a dictionary, which this reader has not");
  const unsigned size_code = sizes >> 4 & 7;
  if (size_code < 4 || (sizes & 0x8f) != 0) return damaged("an unknown block size");
  out->linked = (flags & 0x20) == 0;
  out->block_checksums = (flags & 0x10) != 0;
  out->has_size = (flags & 8) != 0;
  out->content_checksum = (flags & 4) != 0;
  out->content_bytes = 0;
  out->block_max = uint64_t{1} << (8 + 2 * size_code);
  if (out->has_size) {
    const uint8_t *const size = input.take(8);
    if (size == nullptr) return damaged("an unfinished header");
    std::memcpy(&out->content_bytes, size, 8);
  }
  const uint64_t header_bytes = out->has_size ? 10 : 2;
  const uint8_t *const check = input.take(1);
  if (check == nullptr) return damaged("an unfinished header");
  if (*check != (xxh32(start, header_bytes) >> 8 & 0xff)) return damaged("a wrong header checksum");
  return RING2_OK;
}

int decode_blocks(Input &input, const Descriptor &frame, Output &output) {
  const uint64_t begin = output.written;
  while (true) {
    const uint8_t *const head = input.take(4);
    if (head == nullptr) return damaged("no end mark");
    const uint32_t size = word_at(head);
    if (size == 0) break;
    const uint32_t bytes = size & 0x7fffffffu;
    const uint8_t *const data = bytes > frame.block_max ? nullptr : input.take(bytes);
    if (data == nullptr) return damaged("a block beyond its end");
    if (frame.block_checksums) {
      const uint8_t *const check = input.take(4);
      if (check == nullptr || word_at(check) != xxh32(data, bytes)) {
        return damaged("a wrong block checksum");
      }
    }
    const uint64_t before = output.written;
    Input block = {data, bytes};
    const bool stored = (size & 0x80000000u) != 0;
    const int decoded = stored ? copy_literals(block, bytes, output)
                               : decode_block(block, frame.linked ? begin : before, output);
    if (decoded != RING2_OK) return decoded;
    if (output.written - before > frame.block_max) return damaged("a block above its bound");
  }
  if (frame.has_size && output.written - begin != frame.content_bytes) {
    return damaged("another content size than its header says");
  }
  if (!frame.content_checksum) return RING2_OK;
  const uint8_t *const check = input.take(4);
  if (check == nullptr) return damaged("no content checksum");
  if (output.buffer == nullptr) return RING2_OK;
  if (word_at(check) == xxh32(output.buffer + begin, output.written - begin)) return RING2_OK;
  return damaged("a wrong content checksum");
}

int decode(const void *frame, uint64_t bytes, Output &output) {
  Input input = {static_cast<const uint8_t *>(frame), bytes};
  Descriptor descriptor = {};
  const int read = read_descriptor(input, &descriptor);
  if (read != RING2_OK) return read;
  const int decoded = decode_blocks(input, descriptor, output);
  if (decoded != RING2_OK) return decoded;
  return input.left == 0 ? RING2_OK : damaged("bytes after it");
}

}  // namespace

bool decode_lz4_block(const uint8_t *block, uint64_t bytes, uint8_t *content, uint64_t content_bytes) {
  // An empty answer still needs a place, so that it is not taken for a count.
  uint8_t none = 0;
  Output output = {content_bytes == 0 ? &none : content, content_bytes, 0};
  return decode_block({block, bytes}, 0, output) == RING2_OK && output.written == content_bytes;
}

}  // namespace ring2

extern "C" {

int ring2_lz4_size(const void *frame, uint64_t bytes, uint64_t most, uint64_t *content_bytes) {
  ring2::Output output = {nullptr, most, 0};
  const int decoded = ring2::decode(frame, bytes, output);
  if (decoded == RING2_OK) *content_bytes = output.written;
  return decoded;
}

int ring2_lz4_decode(const void *frame, uint64_t bytes, void *out, uint64_t out_bytes) {
  // An empty answer still needs a place, so that it is not taken for a count.
  uint8_t none = 0;
  uint8_t *const buffer = out_bytes == 0 ? &none : static_cast<uint8_t *>(out);
  ring2::Output output = {buffer, out_bytes, 0};
  const int decoded = ring2::decode(frame, bytes, output);
  if (decoded != RING2_OK || output.written == out_bytes) return decoded;
  return ring2::damaged("less content than asked for");
}

}  // extern "C"
