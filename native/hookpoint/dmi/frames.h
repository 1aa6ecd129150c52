// Compressed frames: 16 bytes of checksum, the method, both sizes, then the bytes.
#ifndef RING2_DMI_FRAMES_H
#define RING2_DMI_FRAMES_H

#include <string>
#include <vector>

#include "stream.h"

namespace ring2::dmi {

// What is inside the frames that `under` holds. Throws Damaged for a frame that cannot be opened;
// the frame itself has been read then, and resume() finds where the next packet begins.
class Frames : public Stream {
 public:
  Frames(Plain &under, Budget &budget) : under_(under), budget_(budget) {}
  ~Frames() override { shrink(); }
  uint64_t some(uint8_t *target, uint64_t bytes, uint64_t deadline) override;
  // After a block: bytes of its last frame that are left belong to nobody.
  void end_block() { at_ = content_bytes_; }
  // Skips the frames of a damaged block, up to the next Data packet. Throws Lost when what follows
  // is neither.
  void resume();

 private:
  bool load(uint64_t deadline);
  void open();
  void shrink();
  bool reserve(uint64_t packed_bytes, uint64_t content_bytes);

  Plain &under_;
  Budget &budget_;
  uint64_t borrowed_ = 0;
  std::vector<uint8_t> packed_;   // from the method byte on
  std::vector<uint8_t> content_;
  uint8_t header_[25];
  uint64_t header_have_ = 0;
  uint64_t packed_bytes_ = 0;
  uint64_t packed_have_ = 0;
  uint64_t content_bytes_ = 0;
  uint64_t at_ = 0;
};

// `text` as one frame that any client opens.
std::string as_frame(const std::string &text);

}  // namespace ring2::dmi
#endif
