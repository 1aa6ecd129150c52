// Listens, gives every client a thread, and keeps the ledger's time.
#ifndef RING2_DMI_SERVER_H
#define RING2_DMI_SERVER_H

#include <list>
#include <thread>

#include "connection.h"

namespace ring2::dmi {

class Server {
 public:
  Server(Shared shared, uint64_t connections_max, uint64_t settle_ns)
      : shared_(shared), connections_max_(connections_max), settle_ns_(settle_ns) {}
  // Returns what is wrong, or nothing. Port 0: any that is free.
  std::string listen_on(const sockaddr_in &address);
  uint16_t port() const { return port_; }
  // Until stop_fd is readable; then every connection has ended.
  void run();

 private:
  struct Client {
    Client(int fd, Shared &shared) : connection(fd, shared) {}
    Connection connection;
    std::thread thread;
    std::atomic<bool> done{false};
    bool leaving = false;
  };
  void take_client();
  bool make_room();
  void reap(bool all);

  Shared shared_;
  const uint64_t connections_max_;
  const uint64_t settle_ns_;
  int listen_fd_ = -1;
  uint16_t port_ = 0;
  std::list<Client> clients_;
};

}  // namespace ring2::dmi
#endif
