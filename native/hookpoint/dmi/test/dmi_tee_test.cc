// A real server that stands still: which connections wait for it, and which go without.

#include <arpa/inet.h>
#include <netinet/in.h>

#include "session.h"

namespace ring2::dmi {
namespace {

// A listening socket; connections are made by the kernel, and nobody says anything on them.
class Stalled {
 public:
  Stalled() {
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr *>(&any), sizeof any), 0);
    EXPECT_EQ(listen(fd_, 16), 0);
    socklen_t bytes = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr *>(&address), &bytes);
  }
  ~Stalled() { close(fd_); }

  // From here on it greets whoever comes, and whoever has come.
  std::thread greet(std::atomic<bool> &over) const {
    return std::thread([this, &over] {
      std::string greeting = hello_answer(kRevision);
      const size_t name = greeting.find("ring2-dmi-bridge");
      greeting.replace(name, 16, "the real server!");
      std::vector<int> clients;
      pollfd one = {fd_, POLLIN, 0};
      while (!over) {
        if (poll(&one, 1, 20) <= 0) continue;
        clients.push_back(accept(fd_, nullptr, nullptr));
        send(clients.back(), greeting.data(), greeting.size(), MSG_NOSIGNAL);
      }
      for (const int client : clients) close(client);
    });
  }

  sockaddr_in address = {};

 private:
  int fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

TEST(DmiTee, WhileAServerStallsNewConnectionsGoWithoutItAndLaterTheyHaveItAgain) {
  const Stalled server;
  Bridge bridge;
  bridge.tee.address = server.address;
  bridge.tee.wait_ns = 100 * kMillisecond;
  bridge.tee.again_ns = 2 * kSecond;
  TestRow row;
  const auto play = [&] {
    row.layer += 1;
    return bridge.play(hello() + insert(block_of({row})));
  };
  EXPECT_EQ(play().back(), '\x05');
  EXPECT_EQ(bridge.counts.tees_cut, 1u);
  EXPECT_EQ(bridge.counts.tees_left_out, 0u);
  EXPECT_EQ(play().back(), '\x05');
  EXPECT_EQ(bridge.counts.tees_cut, 1u);
  EXPECT_EQ(bridge.counts.tees_left_out, 1u);
  std::atomic<bool> over = false;
  std::thread greeter = server.greet(over);
  while (bridge.tee_health.left_alone(now_ns())) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_NE(bridge.play(hello()).find("the real server!"), std::string::npos);
  EXPECT_EQ(bridge.counts.tees_left_out, 1u);
  EXPECT_EQ(bridge.counts.rows_written, 2u);
  over = true;
  greeter.join();
}

TEST(DmiTee, AServerThatStallsAgainIsLeftAloneForLongerUntilItTakesAnInsert) {
  TeeHealth health;
  uint64_t now = kSecond;
  for (uint64_t pause = kTeeAgainNs; pause <= kTeeAgainNsMax; pause *= 2) {
    health.stalled(now, kTeeAgainNs);
    health.stalled(now + kSecond, kTeeAgainNs);  // seen by another connection
    EXPECT_TRUE(health.left_alone(now + pause - 1));
    EXPECT_FALSE(health.left_alone(now + pause));
    EXPECT_TRUE(health.doubted());
    now += pause;
  }
  health.stalled(now, kTeeAgainNs);
  EXPECT_FALSE(health.left_alone(now + kTeeAgainNsMax));
  health.answered();
  EXPECT_FALSE(health.doubted());
  health.stalled(now, kTeeAgainNs);
  EXPECT_FALSE(health.left_alone(now + kTeeAgainNs));
}

}  // namespace
}  // namespace ring2::dmi
