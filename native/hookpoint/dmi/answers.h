// What a server says: our own answers, and the packets of a real server that are looked at before
// they are passed on.
#ifndef RING2_DMI_ANSWERS_H
#define RING2_DMI_ANSWERS_H

#include <string>
#include <vector>

#include "statements.h"
#include "stream.h"

namespace ring2::dmi {

enum ServerPacket : uint64_t {
  kServerHello = 0,
  kServerData = 1,
  kServerException = 2,
  kServerProgress = 3,
  kServerPong = 4,
  kServerEndOfStream = 5,
  kServerProfileInfo = 6,
  kServerTotals = 7,
  kServerExtremes = 8,
  kServerLog = 10,
  kServerTableColumns = 11,
  kServerProfileEvents = 14,
};

std::string hello_answer(uint64_t revision);
std::string pong_answer();
std::string end_answer();
// A block of no rows: what an INSERT may send.
std::string header_answer(const Columns &columns, uint64_t revision, bool compressed);
std::string literal_answer(uint8_t value, uint64_t revision, bool compressed);
std::string exception_answer(const std::string &text);

struct ServerHello {
  uint64_t revision = 0;
  std::string clamped;  // the packet, with no newer revision than this program reads
};

// One packet at the beginning of what a real server sent.
struct Answer {
  uint64_t kind = 0;
  uint64_t bytes = 0;  // 0: not all of it is there yet
  ServerHello hello;
  std::string text;    // of an exception
};

// Throws Lost when it is no packet that is known.
Answer read_answer(const std::vector<uint8_t> &from, uint64_t client_revision, uint64_t revision,
                   bool compressed, Budget &budget);

}  // namespace ring2::dmi
#endif
