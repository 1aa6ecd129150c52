#include "connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>

namespace ring2::dmi {

Connection::Connection(int fd, Shared &shared)
    : fd_(fd), shared_(shared), tee_(shared.tee, shared.tee_health, shared.counts),
      frames_(*this, shared.budget), patience_(shared.patience) {}

Connection::~Connection() { close(fd_); }

void Connection::dismiss() { shutdown(fd_, SHUT_RDWR); }

void Connection::run() {
  serve();
  dismiss();
}

void Connection::serve() {
  try {
    greet();
    while (true) packet();
  } catch (const Gone &) {
    return;
  } catch (const Overdue &) {
    (greeted_ ? shared_.counts.stalled : shared_.counts.silent) += 1;
    if (greeted_) log_once("stalled", "a client that stopped in the middle of a packet is closed");
    else log_once("silent", "a client that sent no whole Hello in time is closed");
  } catch (const std::exception &lost) {
    shared_.counts.framing_lost += 1;
    log_line(std::string("a connection is closed: ") + lost.what());
  }
}

void Connection::greet() {
  patience_.hello_begins();
  if (varint() != kClientHello) {
    throw Lost("no Hello of the native protocol; HTTP has another port");
  }
  Hello hello = read_hello(*this);
  greeted_ = true;
  patience_.nothing_is_due();
  hello.revision = std::min(hello.revision, kRevision);
  client_revision_ = revision_ = hello.revision;
  exchange_ = {};
  exchange_.kind = Exchange::kHello;
  tee_.open();
  if (tee_.live()) {
    const std::string text = write_hello(hello);
    tee_.forward(reinterpret_cast<const uint8_t *>(text.data()), text.size());
    const uint64_t more = at_hand();
    if (more > 0) tee_.forward(peek(more), more);
    tapping_ = true;
  }
  due();
  settle();
  while (!exchange_.finished) wait(false, kNever);
  // The key of a quota.
  if (has_addendum(revision_)) discard(length());
}

void Connection::packet() {
  const uint64_t kind = varint();
  patience_.packet_begins();
  switch (kind) {
    case kClientPing:
      exchange_ = {};
      exchange_.kind = Exchange::kPing;
      due();
      break;
    case kClientQuery:
      statement();
      break;
    case kClientData:
      data();
      break;
    case kClientCancel:
      break;
    default:
      throw Lost("packet " + std::to_string(kind) + " of a client");
  }
  patience_.nothing_is_due();
  settle();
}

void Connection::statement() {
  const Query query = read_query(*this, revision_);
  exchange_ = {};
  exchange_.kind = Exchange::kStatement;
  exchange_.compressed = query.compressed;
  exchange_.statement = read_statement(query.text);
  if (exchange_.statement.kind == Statement::kEngine) shared_.tables.learn(query.text);
}

void Connection::data() {
  discard(length());  // name of a temporary table
  const bool insert = exchange_.kind == Exchange::kStatement &&
                      exchange_.statement.kind == Statement::kInsert && exchange_.tables_sent;
  block_of(insert && !exchange_.data_ended ? &shared_.ledger : nullptr);
}

void Connection::block_of(RowSink *sink) {
  BlockFacts facts;
  try {
    if (exchange_.compressed) {
      facts = read_block(frames_, revision_, sink, shared_.budget);
      frames_.end_block();
    } else {
      facts = read_block(*this, revision_, sink, shared_.budget);
    }
  } catch (const Damaged &damaged) {
    shared_.counts.blocks_damaged += 1;
    shared_.ledger.lose(RING2_LOSS_UNSUPPORTED, 1, 0);
    log_once("damaged", std::string("a block is dropped: ") + damaged.what());
    if (exchange_.compressed) {
      frames_.resume();
      return;
    }
    resume_plain();  // and facts say what ends an INSERT
  }
  if (facts.columns > 0) {
    if (facts.rows > 0) shared_.counts.blocks += 1;
    return;
  }
  if (!exchange_.tables_sent) exchange_.tables_sent = true;
  else exchange_.data_ended = true;
  due();
}

// Nobody can count the bytes of such a block. But a client ends its INSERT with an empty block and
// is silent then until it is answered.
void Connection::resume_plain() {
  const std::string end = revision_ >= 51903
                              ? std::string("\x02\x00\x01\x00\x02\xff\xff\xff\xff\x00\x00\x00", 12)
                              : std::string("\x02\x00\x00\x00", 4);
  std::string last;
  uint8_t buffer[16 * 1024];
  while (true) {
    const bool ended = last == end;
    const uint64_t came = some(buffer, sizeof buffer, ended ? now_ns() + kSilenceNs : kNever);
    if (came == 0) return;
    last.append(reinterpret_cast<const char *>(buffer), came);
    if (last.size() > end.size()) last.erase(0, last.size() - end.size());
  }
}

uint64_t Connection::receive(uint8_t *target, uint64_t bytes, uint64_t deadline) {
  patience_.asks();
  while (true) {
    const ssize_t came = recv(fd_, target, bytes, MSG_DONTWAIT);
    if (came > 0) {
      patience_.came(static_cast<uint64_t>(came));
      if (tapping_ && tee_.live()) tee_.forward(target, static_cast<uint64_t>(came));
      return static_cast<uint64_t>(came);
    }
    if (came == 0) throw Gone("the client has closed");
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) throw Gone(std::strerror(errno));
    const bool ready = wait(true, std::min(deadline, patience_.until()));
    const uint64_t now = now_ns();
    if (now >= patience_.until()) throw Overdue("a client that does not end what it began");
    if (!ready && now >= deadline) {
      patience_.came(0);
      return 0;
    }
  }
}

void Connection::send_all(const void *data, uint64_t bytes) {
  const auto *at = static_cast<const uint8_t *>(data);
  const uint64_t deadline = now_ns() + kSendNs;
  while (bytes > 0) {
    const ssize_t taken = send(fd_, at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (taken > 0) {
      at += taken;
      bytes -= static_cast<uint64_t>(taken);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) throw Gone(std::strerror(errno));
    if (now_ns() >= deadline) throw Gone("the client takes no answer");
    pollfd one = {fd_, POLLOUT, 0};
    poll(&one, 1, static_cast<int>(kTickNs / kMillisecond));
  }
}

}  // namespace ring2::dmi
