// A client's session as bytes, and a bridge in this process to play it to.
#ifndef RING2_DMI_SESSION_H
#define RING2_DMI_SESSION_H

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "connection.h"

namespace ring2::dmi {

struct TestRow {
  std::string model = "m", request = "r1", act = "blocks.hook_resid_pre", dtype = "torch.float";
  int32_t layer = 0, shard = 0, start = 0, end = 2;
  std::vector<int64_t> shape = {2, 3};
  std::string bytes = std::string(24, 'x');
};

template <typename T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char *>(&value), sizeof value);
}

inline std::string text(const std::string &value) {
  std::string out;
  put_text(&out, value);
  return out;
}

inline std::string block_of(const std::vector<TestRow> &rows, const std::string &more = "",
                            uint64_t more_columns = 0) {
  std::string out("\x01\x00\x02\xff\xff\xff\xff\x00", 8);
  put_number(&out, 10 + more_columns);
  put_number(&out, rows.size());
  out += more;
  const auto column = [&](const char *name, const char *type, auto value) {
    out += text(name) + text(type);
    for (const TestRow &row : rows) out += value(row);
  };
  column("model_id", "String", [](const TestRow &row) { return text(row.model); });
  column("request_id", "String", [](const TestRow &row) { return text(row.request); });
  column("act_name", "String", [](const TestRow &row) { return text(row.act); });
  column("layer_no", "Int32", [](const TestRow &row) { return raw(row.layer); });
  column("shard_rank", "Int32", [](const TestRow &row) { return raw(row.shard); });
  column("start_token_idx", "Int32", [](const TestRow &row) { return raw(row.start); });
  column("end_token_idx", "Int32", [](const TestRow &row) { return raw(row.end); });
  column("dtype", "String", [](const TestRow &row) { return text(row.dtype); });
  uint64_t end = 0;
  column("shape", "Array(Int64)", [&](const TestRow &row) { return raw(end += row.shape.size()); });
  for (const TestRow &row : rows) for (const int64_t axis : row.shape) out += raw(axis);
  column("bytes", "String", [](const TestRow &row) { return text(row.bytes); });
  return out;
}

inline std::string hello() { return write_hello({"test", 2, 6, 54459, "default", "default", ""}); }

inline std::string query(const std::string &statement, bool compressed = false) {
  std::string out;
  put_number(&out, kClientQuery);
  out += text("") + "\x01" + text("") + text("") + text("") + std::string(8, '\0') + "\x01";
  out += text("") + text("") + text("") + std::string("\x02\x06\x00", 3);  // user, host, client
  out += text("") + std::string("\0\0\0\0\0\0", 6);  // quota, depth, patch, tracing, replicas
  out += text("") + text("") + "\x02" + std::string(1, compressed ? '\x01' : '\0');
  out += text(statement);
  return out;
}

inline std::string data(const std::string &block, bool compressed = false) {
  return std::string("\x02\x00", 2) + (compressed ? as_frame(block) : block);
}

inline std::string end_block(bool compressed = false) {
  return data(std::string("\x01\x00\x02\xff\xff\xff\xff\x00\x00\x00", 10), compressed);
}

inline std::string insert(const std::string &block, bool compressed = false) {
  return query("INSERT INTO offload VALUES", compressed) + end_block(compressed) +
         data(block, compressed) + end_block(compressed);
}

class Bridge {
 public:
  explicit Bridge(uint64_t payload_bytes = 1 << 20) {
    char folder[] = "/tmp/ring2-dmi-XXXXXX";
    options_.directory = mkdtemp(folder);
    options_.payload_bytes = payload_bytes;
    ledger_.emplace(options_, counts, budget);
    EXPECT_EQ(ledger_->open(), "");
  }
  ~Bridge() {
    ledger_.reset();
    close(stop_fd_);
    std::system(("rm -rf " + options_.directory).c_str());
  }

  // What the bridge answers to a client that sends this and closes.
  std::string play(const std::string &bytes) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    Shared shared{*ledger_, counts, budget, tables, tee, tee_health, stop_fd_};
    std::thread bridge([&] { Connection(ends[1], shared).run(); });
    std::string answer;
    std::thread reader([&] {
      char buffer[4096];
      for (ssize_t came; (came = read(ends[0], buffer, sizeof buffer)) > 0;) {
        answer.append(buffer, static_cast<size_t>(came));
      }
    });
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t sent = send(ends[0], bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) break;
      at += static_cast<size_t>(sent);
    }
    shutdown(ends[0], SHUT_WR);
    bridge.join();
    reader.join();
    close(ends[0]);
    return answer;
  }

  Ledger &ledger() { return *ledger_; }
  std::string path() const { return options_.directory + "/ring2.dmi"; }

  Counts counts;
  Budget budget{64 << 20};
  Tables tables;
  TeeOptions tee;
  TeeHealth tee_health;

 private:
  LedgerOptions options_;
  std::optional<Ledger> ledger_;
  int stop_fd_ = eventfd(0, 0);
};

}  // namespace ring2::dmi
#endif
