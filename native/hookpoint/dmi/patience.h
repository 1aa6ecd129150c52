// How long a client is waited for that has begun something and not ended it.
//
// A Hello has its time from the beginning. A packet has its time anew with every
// kPacketProgressBytes; what the bridge itself does with the bytes, and what a real server makes it
// wait, is not the client's time.
#ifndef RING2_DMI_PATIENCE_H
#define RING2_DMI_PATIENCE_H

#include "stream.h"

namespace ring2::dmi {

struct PatienceOptions {
  uint64_t hello_ns = kHelloNs;
  uint64_t packet_ns = kPacketNs;
};

class Patience {
 public:
  explicit Patience(const PatienceOptions &options) : options_(options) {}

  void hello_begins() { until_ = now_ns() + options_.hello_ns; }
  void packet_begins() {
    own_since_ = now_ns();
    until_ = own_since_ + options_.packet_ns;
    bytes_ = 0;
    packet_ = true;
  }
  void nothing_is_due() {
    until_ = kNever;
    packet_ = false;
  }

  // More bytes are asked for, and so many have come.
  void asks() {
    if (packet_) until_ += now_ns() - own_since_;
  }
  void came(uint64_t bytes) {
    if (!packet_) return;
    own_since_ = now_ns();
    bytes_ += bytes;
    if (bytes_ < kPacketProgressBytes) return;
    bytes_ = 0;
    until_ = own_since_ + options_.packet_ns;
  }
  uint64_t until() const { return until_; }

 private:
  const PatienceOptions options_;
  uint64_t until_ = kNever;
  uint64_t own_since_ = 0;
  uint64_t bytes_ = 0;
  bool packet_ = false;
};

}  // namespace ring2::dmi
#endif
