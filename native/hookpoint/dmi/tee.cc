#include "tee.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

namespace ring2::dmi {

void TeeHealth::stalled(uint64_t now, uint64_t again_ns) {
  if (left_alone(now)) return;  // other connections have noticed the same
  const uint64_t longer = std::min(2 * pause_.load(), kTeeAgainNsMax);
  const uint64_t pause = std::max(longer, again_ns);
  pause_ = pause;
  until_ = now + pause;
}

void TeeHealth::answered() {
  if (!doubted()) return;
  until_ = 0;
  pause_ = 0;
}

Tee::~Tee() {
  if (fd_ >= 0) close(fd_);
}

void Tee::cut(const std::string &why) {
  if (fd_ < 0) return;
  close(fd_);
  fd_ = -1;
  pending_ = {};
  sent_ = 0;
  counts_.tees_cut += 1;
  log_line("a connection's tee is cut: " + why + "; its rows go to the ring alone from here on");
}

void Tee::stall(const std::string &why) {
  if (!live()) return;
  health_.stalled(now_ns(), options_.again_ns);
  cut(why);
}

uint64_t Tee::wait_ns() const {
  return health_.doubted() ? std::min(options_.wait_ns, kTeeDoubtNs) : options_.wait_ns;
}

bool Tee::await(short events, uint64_t deadline) {
  while (true) {
    const uint64_t now = now_ns();
    if (now >= deadline) return false;
    pollfd one = {fd_, events, 0};
    const int ready = poll(&one, 1, static_cast<int>((deadline - now) / kMillisecond) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

void Tee::open() {
  if (options_.address.sin_port == 0) return;
  if (health_.left_alone(now_ns())) {
    counts_.tees_left_out += 1;
    return log_once("left out", "connections go without a tee while ClickHouse stalls");
  }
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) return;
  const int one = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  const auto *const address = reinterpret_cast<const sockaddr *>(&options_.address);
  if (connect(fd_, address, sizeof options_.address) == 0) return;
  int error = errno;
  if (error == EINPROGRESS) {
    socklen_t bytes = sizeof error;
    if (!await(POLLOUT, now_ns() + wait_ns())) return stall("ClickHouse takes no connection");
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &bytes);
  }
  if (error != 0) cut(std::string("connecting to ClickHouse: ") + std::strerror(error));
}

bool Tee::push() {
  while (sent_ < pending_.size()) {
    const ssize_t taken = send(fd_, pending_.data() + sent_, pending_.size() - sent_,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
    if (taken > 0) {
      sent_ += static_cast<uint64_t>(taken);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
    cut(std::string("sending: ") + std::strerror(errno));
    return false;
  }
  if (sent_ == pending_.size()) {
    pending_.clear();
    sent_ = 0;
  } else if (sent_ > pending_.size() / 2) {
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(sent_));
    sent_ = 0;
  }
  return true;
}

void Tee::forward(const uint8_t *data, uint64_t bytes) {
  uint64_t deadline = now_ns() + wait_ns();
  while (live() && bytes > 0) {
    if (pending_.empty()) {
      const ssize_t taken = send(fd_, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (taken > 0) {
        data += taken;
        bytes -= static_cast<uint64_t>(taken);
        continue;
      }
    }
    const uint64_t before = pending_.size() - sent_;
    if (!push()) return;
    const uint64_t waiting = pending_.size() - sent_;
    if (waiting < before) deadline = now_ns() + wait_ns();
    if (waiting + bytes <= options_.buffer_bytes || waiting == 0) {
      pending_.insert(pending_.end(), data, data + bytes);
      return;
    }
    // Its answers are taken meanwhile, or two that both only send would wait for each other.
    if (!await(POLLOUT | POLLIN, deadline)) return stall("ClickHouse takes nothing");
    serve(POLLIN);
  }
}

pollfd Tee::wanted() const {
  const bool room = received_.size() < kAnswerBytesMax;
  const int events = (room ? POLLIN : 0) | (pending_.empty() ? 0 : POLLOUT);
  return {fd_, static_cast<short>(events), 0};
}

void Tee::serve(short events) {
  if (!live()) return;
  if ((events & POLLOUT) != 0 && !push()) return;
  if ((events & (POLLIN | POLLHUP | POLLERR)) == 0) return;
  uint8_t buffer[16 * 1024];
  while (received_.size() < kAnswerBytesMax) {
    const ssize_t came = recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (came > 0) {
      received_.insert(received_.end(), buffer, buffer + came);
      continue;
    }
    if (came < 0 && errno == EINTR) continue;
    if (came < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    return cut(came == 0 ? "ClickHouse has closed it" : std::strerror(errno));
  }
}

}  // namespace ring2::dmi
