#include "server.h"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>

namespace ring2::dmi {

std::string Server::listen_on(const sockaddr_in &address) {
  listen_fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int one = 1;
  setsockopt(listen_fd_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listen_fd_, reinterpret_cast<const sockaddr *>(&address), sizeof address) != 0 ||
      listen(listen_fd_, SOMAXCONN) != 0) {
    return std::string("listening: ") + std::strerror(errno);
  }
  sockaddr_in bound = {};
  socklen_t bytes = sizeof bound;
  getsockname(listen_fd_, reinterpret_cast<sockaddr *>(&bound), &bytes);
  port_ = ntohs(bound.sin_port);
  return "";
}

void Server::reap(bool all) {
  for (auto client = clients_.begin(); client != clients_.end();) {
    if (!all && !client->done) {
      ++client;
      continue;
    }
    client->thread.join();
    client = clients_.erase(client);
  }
}

// In a full house whoever has said nothing for the longest has to leave.
bool Server::make_room() {
  reap(false);
  if (clients_.size() < connections_max_) return true;
  if (clients_.size() >= connections_max_ + kConnectionsLeaving) return false;
  for (Client &client : clients_) {
    if (client.leaving || client.done || client.connection.greeted()) continue;
    client.leaving = true;
    shared_.counts.silent += 1;
    client.connection.dismiss();
    log_once("evicted", "a client without a whole Hello is closed: its place is needed");
    return true;
  }
  return false;
}

void Server::take_client() {
  const int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  if (clients_.size() >= connections_max_ && !make_room()) {
    shared_.counts.refused += 1;
    close(fd);
    log_once("refused", "a connection is refused: " + std::to_string(connections_max_) +
                            " are open, see --connections");
    return;
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  shared_.counts.connections += 1;
  Client &client = clients_.emplace_back(fd, shared_);
  try {
    client.thread = std::thread([&client] {
      client.connection.run();
      client.done = true;
    });
  } catch (const std::system_error &) {
    clients_.pop_back();
    shared_.counts.refused += 1;
  }
}

void Server::run() {
  uint64_t tick_at = now_ns() + kTickNs;
  uint64_t empty_since = 0;
  while (true) {
    pollfd both[2] = {{listen_fd_, POLLIN, 0}, {shared_.stop_fd, POLLIN, 0}};
    poll(both, 2, static_cast<int>(kTickNs / kMillisecond));
    if ((both[1].revents & POLLIN) != 0) break;
    if ((both[0].revents & POLLIN) != 0) take_client();
    const uint64_t now = now_ns();
    if (now < tick_at) continue;
    tick_at = now + kTickNs;
    reap(false);
    shared_.ledger.tick(now);
    if (!clients_.empty()) empty_since = 0;
    else if (empty_since == 0) empty_since = now;
    else if (now - empty_since >= settle_ns_) shared_.ledger.end_all();
  }
  close(listen_fd_);
  reap(true);
  shared_.ledger.end_all();
}

}  // namespace ring2::dmi
