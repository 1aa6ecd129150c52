// Clients that are silent, stop half-way or send more than there is memory for: what they had is
// given back, and nobody else is told.

#include <arpa/inet.h>

#include "server.h"
#include "session.h"

namespace ring2::dmi {
namespace {

constexpr char kEnd = '\x05';
constexpr uint64_t kBudgetBytes = 64 << 20;  // of a Bridge

class Client {
 public:
  explicit Client(uint16_t port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<const sockaddr *>(&address), sizeof address), 0);
  }
  ~Client() { close(fd_); }
  void say(const std::string &bytes) const {
    EXPECT_EQ(send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // What comes next; nothing when the bridge has closed.
  std::string hear() const {
    char buffer[4096];
    const ssize_t came = recv(fd_, buffer, sizeof buffer, 0);
    return std::string(buffer, static_cast<size_t>(std::max<ssize_t>(came, 0)));
  }

 private:
  int fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

// A bridge that listens.
class House {
 public:
  House(uint64_t places, const PatienceOptions &patience)
      : shared_{bridge.ledger(), bridge.counts, bridge.budget, bridge.tables, {},
                bridge.tee_health, stop_fd_, patience},
        server_(shared_, places, kSecond) {
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(server_.listen_on(any), "");
    thread_ = std::thread([this] { server_.run(); });
  }
  ~House() {
    const uint64_t one = 1;
    EXPECT_EQ(write(stop_fd_, &one, sizeof one), static_cast<ssize_t>(sizeof one));
    thread_.join();
    close(stop_fd_);
  }
  uint16_t port() const { return server_.port(); }

  Bridge bridge;

 private:
  int stop_fd_ = eventfd(0, EFD_NONBLOCK);
  Shared shared_;
  Server server_;
  std::thread thread_;
};

// The client neither closes nor says more; `dribble`: or a byte from time to time. Returns when the
// bridge has given it up.
void play_and_stop(Bridge &bridge, const std::string &bytes, bool dribble = false) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const int stop_fd = eventfd(0, 0);
  Shared shared{bridge.ledger(), bridge.counts, bridge.budget, bridge.tables, {},
                bridge.tee_health, stop_fd, {kNever / 2, 200 * kMillisecond}};
  std::atomic<bool> over = false;
  std::thread client([&] {
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t sent = send(ends[0], bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) return;
      at += static_cast<size_t>(sent);
    }
    while (dribble && !over && send(ends[0], "x", 1, MSG_NOSIGNAL) == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  Connection(ends[1], shared).run();
  over = true;
  client.join();
  close(ends[0]);
  close(stop_fd);
}

TEST(DmiPatience, AClientThatSendsNoWholeHelloIsClosedAndOthersStay) {
  House house(8, {300 * kMillisecond, kPacketNs});
  const Client other(house.port());
  other.say(hello());
  EXPECT_NE(other.hear(), "");
  const Client half(house.port());
  half.say(hello().substr(0, 9));
  EXPECT_EQ(half.hear(), "");
  EXPECT_EQ(house.bridge.counts.silent, 1u);
  // Silence between packets is nobody's fault.
  other.say("\x04");
  EXPECT_EQ(other.hear(), "\x04");
  EXPECT_EQ(house.bridge.counts.stalled, 0u);
}

TEST(DmiPatience, InAFullHouseWhoeverNeverSpokeLeavesFirst) {
  House house(3, {kNever / 2, kPacketNs});
  const Client greeted(house.port());
  greeted.say(hello());
  EXPECT_NE(greeted.hear(), "");
  const Client first(house.port()), second(house.port());
  const Client third(house.port());
  third.say(hello());
  EXPECT_NE(third.hear(), "");
  EXPECT_EQ(first.hear(), "");
  EXPECT_EQ(house.bridge.counts.silent, 1u);
  second.say(hello());
  EXPECT_NE(second.hear(), "");
  // All have spoken now: the next one is refused, and they stay.
  const Client fourth(house.port());
  EXPECT_EQ(fourth.hear(), "");
  EXPECT_EQ(house.bridge.counts.refused, 1u);
  greeted.say("\x04");
  EXPECT_EQ(greeted.hear(), "\x04");
}

// Payloads before the facts of their rows, so that they have to be held.
std::string block_of_bytes_first(uint64_t bytes) {
  std::string out("\x01\x00\x02\xff\xff\xff\xff\x00", 8);
  put_number(&out, 10);
  put_number(&out, 2);
  out += text("bytes") + text("String");
  return out + text(std::string(bytes, 'x')) + text(std::string(bytes, 'y'));
}

TEST(DmiPatience, AClientThatStopsInABlockGivesItsMemoryBack) {
  TestRow large;
  large.shape = {2, 1 << 19};
  large.bytes = std::string(4 << 20, 'z');
  const std::string frame = insert(block_of({large}), true), plain = insert(block_of({{}, {}}));
  const std::string held = insert(block_of_bytes_first(3 << 20));
  struct Stop {
    const char *where;
    std::string bytes;
    uint64_t unfinished, aborted;
  };
  const Stop stops[] = {
      {"in a compressed frame", frame.substr(0, frame.size() / 2), 0, 0},
      {"in a held payload", held.substr(0, held.size() / 2), 1, 0},
      {"in the texts of rows", plain.substr(0, plain.find("request_id") + 24), 2, 0},
      {"in the first of two payloads", plain.substr(0, plain.size() - 40), 1, 1},
  };
  for (const Stop &stop : stops) {
    Bridge bridge;
    play_and_stop(bridge, hello() + stop.bytes);
    EXPECT_EQ(bridge.counts.stalled, 1u) << stop.where;
    EXPECT_EQ(bridge.counts.unfinished, stop.unfinished) << stop.where;
    EXPECT_EQ(bridge.counts.aborted, stop.aborted) << stop.where;
    EXPECT_EQ(bridge.counts.rows_written, 0u) << stop.where;
    EXPECT_TRUE(bridge.budget.take(kBudgetBytes)) << stop.where;
    ring2_segment_info info;
    ASSERT_EQ(ring2_segment_peek(bridge.path().c_str(), &info), RING2_OK);
    EXPECT_EQ(info.losses[RING2_LOSS_ABORTED].records, stop.unfinished + stop.aborted);
  }
}

TEST(DmiPatience, AByteFromTimeToTimeIsNoProgress) {
  Bridge bridge;
  const std::string held = insert(block_of_bytes_first(3 << 20));
  play_and_stop(bridge, hello() + held.substr(0, held.size() / 2), true);
  EXPECT_EQ(bridge.counts.stalled, 1u);
  EXPECT_TRUE(bridge.budget.take(kBudgetBytes));
}

TEST(DmiPatience, RowsAndTheirTextsAreChargedWithTheRest) {
  Bridge bridge;
  ASSERT_TRUE(bridge.budget.take(kBudgetBytes - 4096));
  constexpr uint64_t kRows = 4000;
  std::vector<TestRow> rows(kRows);
  for (uint64_t i = 0; i < kRows; ++i) {
    rows[i].request = std::to_string(i) + std::string(kIdBytesMax - 8, 'r');
  }
  // Another block has what a block has for nothing.
  EXPECT_EQ(bridge.play(hello() + insert(block_of(rows)) + insert(block_of({{}}))).back(), kEnd);
  EXPECT_GT(bridge.counts.crowded, 0u);
  EXPECT_EQ(bridge.counts.rows_written, 1u);
  EXPECT_EQ(bridge.counts.rows + bridge.counts.crowded, kRows + 1);
  EXPECT_TRUE(bridge.budget.take(4096));
}

}  // namespace
}  // namespace ring2::dmi
