// Packets of a client, but for blocks.
#ifndef RING2_DMI_PACKETS_H
#define RING2_DMI_PACKETS_H

#include <string>

#include "stream.h"

namespace ring2::dmi {

enum ClientPacket : uint64_t {
  kClientHello = 0,
  kClientQuery = 1,
  kClientData = 2,
  kClientCancel = 3,
  kClientPing = 4,
};

struct Hello {
  std::string name;
  uint64_t major = 0, minor = 0, revision = 0;
  std::string database, user, password;
};

struct Query {
  std::string text;
  bool compressed = false;  // blocks of both sides
};

// After the packet's number.
Hello read_hello(Stream &stream);
std::string write_hello(const Hello &hello);
Query read_query(Stream &stream, uint64_t revision);

// The client sends a quota's key after its Hello.
bool has_addendum(uint64_t revision);

void put_number(std::string *out, uint64_t value);
void put_text(std::string *out, const std::string &text);

}  // namespace ring2::dmi
#endif
