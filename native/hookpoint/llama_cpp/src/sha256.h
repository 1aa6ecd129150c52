// SHA-256 of bytes that come in pieces (FIPS 180-4), for fingerprints of vocabularies.
#ifndef RING2_LLAMA_SHA256_H
#define RING2_LLAMA_SHA256_H

#include <cstddef>
#include <cstdint>
#include <string>

namespace ring2_llama {

class Sha256 {
 public:
  void add(const char *bytes, size_t count);
  // 64 hexadecimal digits of all that was added; once, at the end.
  std::string finish();

 private:
  void take_block();

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t block_[64] = {};
  size_t filled_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace ring2_llama

#endif
