// A connection to a real ClickHouse beside one of a client: the client's bytes as they came, and
// what the server says to them. When it is away, or takes nothing for too long, it is cut and stays
// cut.
#ifndef RING2_DMI_TEE_H
#define RING2_DMI_TEE_H

#include <atomic>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <vector>

#include "counts.h"
#include "bounds.h"

namespace ring2::dmi {

struct TeeOptions {
  sockaddr_in address = {};  // port 0: no tee
  uint64_t wait_ns = 5 * kSecond;
  uint64_t buffer_bytes = uint64_t{16} << 20;
  uint64_t again_ns = kTeeAgainNs;
};

// What all connections know of the real server. When it stalled under one of them the next ones go
// without it for a while, so that no client waits for it again and again.
class TeeHealth {
 public:
  bool left_alone(uint64_t now) const { return now < until_; }
  // It has stalled, and has not answered an INSERT since.
  bool doubted() const { return pause_ != 0; }
  void stalled(uint64_t now, uint64_t again_ns);
  void answered();

 private:
  std::atomic<uint64_t> until_{0};
  std::atomic<uint64_t> pause_{0};
};

class Tee {
 public:
  Tee(const TeeOptions &options, TeeHealth &health, Counts &counts)
      : options_(options), health_(health), counts_(counts) {}
  ~Tee();
  Tee(const Tee &) = delete;
  Tee &operator=(const Tee &) = delete;

  void open();
  bool live() const { return fd_ >= 0; }
  void cut(const std::string &why);
  // Cuts because of a server that does nothing, and remembers that.
  void stall(const std::string &why);
  // It has taken an INSERT to its end.
  void answered() { health_.answered(); }
  // How long it may take or answer nothing.
  uint64_t wait_ns() const;
  // Takes the bytes, or cuts. Waits only while the buffer is full, and then no longer than wait_ns()
  // without the server taking anything.
  void forward(const uint8_t *data, uint64_t bytes);
  pollfd wanted() const;
  void serve(short events);
  std::vector<uint8_t> &received() { return received_; }

 private:
  bool push();  // false: cut
  bool await(short events, uint64_t deadline);

  const TeeOptions options_;
  TeeHealth &health_;
  Counts &counts_;
  int fd_ = -1;
  std::vector<uint8_t> pending_;
  uint64_t sent_ = 0;  // of pending
  std::vector<uint8_t> received_;
};

}  // namespace ring2::dmi
#endif
