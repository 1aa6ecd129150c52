// One client, in a thread of its own: decodes what it sends and answers as a server would. With a
// tee the answers are the real server's, as long as there is one, and errors of statements that
// capture depends on are withheld.
#ifndef RING2_DMI_CONNECTION_H
#define RING2_DMI_CONNECTION_H

#include <string>

#include "answers.h"
#include "counts.h"
#include "frames.h"
#include "ledger.h"
#include "packets.h"
#include "patience.h"
#include "statements.h"
#include "tee.h"

namespace ring2::dmi {

// What all connections share.
struct Shared {
  Ledger &ledger;
  Counts &counts;
  Budget &budget;
  Tables &tables;
  TeeOptions tee;
  TeeHealth &tee_health;
  int stop_fd;  // readable when the bridge ends
  PatienceOptions patience = {};
};

// What the client waits for.
struct Exchange {
  enum Kind { kNone, kHello, kPing, kStatement };
  Kind kind = kNone;
  Statement statement;
  bool compressed = false;
  bool tables_sent = false;   // the empty block behind a statement has come
  bool data_ended = false;    // the empty block behind an INSERT's rows
  bool header_given = false;  // of an INSERT
  bool finished = false;
  bool partly = false;        // some bytes of the real server's answer were passed on
  uint64_t due_ns = 0;        // since when the client waits; 0: it does not
};

class Connection : public Plain {
 public:
  Connection(int fd, Shared &shared);
  ~Connection() override;
  // Until the client has gone or is given up, or nothing can be understood any more. Throws nothing.
  // The socket is shut down then, and closed with the object.
  void run();
  // A whole Hello has come. From any thread, as the next.
  bool greeted() const { return greeted_; }
  // Ends run() as if the client had gone.
  void dismiss();

 protected:
  uint64_t receive(uint8_t *target, uint64_t bytes, uint64_t deadline) override;

 private:
  void serve();
  void greet();
  void packet();
  void data();
  void block_of(RowSink *sink);
  void resume_plain();
  void statement();

  // False: the deadline has passed. `client`: bytes of it are waited for.
  bool wait(bool client, uint64_t deadline);
  void relay();
  bool relay_packet();
  void due();
  void settle();
  void send_all(const void *data, uint64_t bytes);
  void send_text(const std::string &text) { send_all(text.data(), text.size()); }
  bool guarded() const;
  void withhold(const std::string &text);

  int fd_;
  Shared &shared_;
  Tee tee_;
  Frames frames_;
  Exchange exchange_;
  Patience patience_;
  std::atomic<bool> greeted_{false};
  bool tapping_ = false;
  uint64_t client_revision_ = 0;
  uint64_t revision_ = 0;
};

}  // namespace ring2::dmi
#endif
