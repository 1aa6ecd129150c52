// The half of a connection that looks at a real server: whose answer the client gets, and when.

#include <algorithm>
#include <cerrno>

#include "connection.h"

namespace ring2::dmi {

// Statements that capture depends on: their errors never reach the engine.
bool Connection::guarded() const {
  if (exchange_.kind == Exchange::kNone) return false;
  if (exchange_.kind != Exchange::kStatement) return true;
  const Statement::Kind kind = exchange_.statement.kind;
  return kind == Statement::kInsert || kind == Statement::kEngine;
}

// Notes that the client waits for an answer, if it does.
void Connection::due() {
  const Exchange &now = exchange_;
  bool waits = !now.finished && now.kind != Exchange::kNone;
  if (now.kind == Exchange::kStatement) {
    waits = waits && now.tables_sent;
    const bool insert = now.statement.kind == Statement::kInsert;
    if (insert) waits = waits && (!now.header_given || now.data_ended);
  }
  exchange_.due_ns = waits ? now_ns() : 0;
}

// Answers what is due where no real server does.
void Connection::settle() {
  if (tee_.live() || exchange_.due_ns == 0) return;
  const bool compressed = exchange_.compressed;
  switch (exchange_.kind) {
    case Exchange::kNone:
      break;
    case Exchange::kHello:
      send_text(hello_answer(client_revision_));
      revision_ = client_revision_;
      exchange_.finished = true;
      break;
    case Exchange::kPing:
      send_text(pong_answer());
      exchange_.finished = true;
      break;
    case Exchange::kStatement: {
      const Statement &statement = exchange_.statement;
      if (exchange_.partly) throw Gone("the real server's answer has been cut off");
      if (statement.kind == Statement::kInsert) {
        if (!exchange_.header_given && !exchange_.data_ended) {
          send_text(header_answer(shared_.tables.of_insert(statement), revision_, compressed));
          exchange_.header_given = true;
        }
        if (!exchange_.data_ended) break;
        send_text(end_answer());
      } else if (statement.kind == Statement::kEngine) {
        send_text(end_answer());
      } else if (statement.kind == Statement::kLiteral) {
        send_text(literal_answer(statement.literal, revision_, compressed));
      } else {
        send_text(exception_answer(
            "this is a bridge that stores nothing to read back: start it with --tee HOST:PORT of a "
            "ClickHouse server"));
      }
      exchange_.finished = true;
      break;
    }
  }
  due();
}

bool Connection::wait(bool client, uint64_t deadline) {
  while (true) {
    const uint64_t now = now_ns();
    if (now >= deadline) return false;
    uint64_t until = deadline;
    if (tee_.live() && guarded() && exchange_.due_ns != 0) {
      const uint64_t answer_by = exchange_.due_ns + tee_.wait_ns();
      if (now >= answer_by) {
        tee_.stall("ClickHouse does not answer");
        settle();
        if (!client) return true;
        continue;
      }
      until = std::min(until, answer_by);
    }
    pollfd all[3] = {{client ? fd_ : -1, POLLIN, 0}, {shared_.stop_fd, POLLIN, 0}, tee_.wanted()};
    const int limit = until == kNever ? -1 : static_cast<int>((until - now) / kMillisecond) + 1;
    if (poll(all, 3, limit) < 0 && errno != EINTR) throw Gone("poll");
    if ((all[1].revents & POLLIN) != 0) throw Gone("the bridge ends");
    if (all[2].revents != 0) {
      tee_.serve(all[2].revents);
      relay();
      if (!client) return true;
    }
    if (all[0].revents != 0) return true;
  }
}

void Connection::relay() {
  std::vector<uint8_t> &received = tee_.received();
  try {
    while (!received.empty() && relay_packet()) continue;
  } catch (const Lost &lost) {
    received.clear();
    tee_.cut(std::string("its answer is not understood: ") + lost.what());
  } catch (const Damaged &damaged) {
    received.clear();
    tee_.cut(std::string("its answer is not understood: ") + damaged.what());
  }
  settle();
}

// False: no whole packet is left.
bool Connection::relay_packet() {
  std::vector<uint8_t> &received = tee_.received();
  if (!guarded()) {
    exchange_.partly = true;
    send_all(received.data(), received.size());
    received.clear();
    return false;
  }
  const Answer answer =
      read_answer(received, client_revision_, revision_, exchange_.compressed, shared_.budget);
  if (answer.bytes == 0) {
    if (received.size() >= kAnswerBytesMax) throw Lost("a packet of a server without an end");
    return false;
  }
  if (answer.kind == kServerException) {
    withhold(answer.text);
    received.clear();
    return false;
  }
  if (answer.kind == kServerHello) {
    revision_ = std::min(client_revision_, answer.hello.revision);
    send_text(answer.hello.clamped);
  } else {
    send_all(received.data(), answer.bytes);
  }
  received.erase(received.begin(), received.begin() + static_cast<ptrdiff_t>(answer.bytes));
  if (answer.kind == kServerData) exchange_.header_given = true;
  const bool last = answer.kind == kServerEndOfStream || answer.kind == kServerPong ||
                    answer.kind == kServerHello;
  if (last) exchange_.finished = true;
  const bool insert = exchange_.kind == Exchange::kStatement &&
                      exchange_.statement.kind == Statement::kInsert;
  if (last && insert && exchange_.data_ended) tee_.answered();
  due();
  return true;
}

void Connection::withhold(const std::string &text) {
  shared_.counts.answers_withheld += 1;
  log_line("ClickHouse refused, and the engine is not told: " + text);
  tee_.cut("ClickHouse refused a statement that capture depends on");
}

}  // namespace ring2::dmi
