#include "packets.h"

#include <array>
#include <string_view>

namespace ring2::dmi {
namespace {

// Revisions of the protocol from which on a field is there.
constexpr uint64_t kClientInfo = 54032, kQuotaKey = 54060, kVersionPatch = 54401,
                   kSettingsAsText = 54429, kServerSecret = 54441, kTracing = 54442,
                   kForwardedFor = 54443, kReferer = 54447, kDistributedDepth = 54448,
                   kStartTime = 54449, kParallelReplicas = 54453, kAddendum = 54458,
                   kParameters = 54459;

void read_client_info(Stream &stream, uint64_t revision) {
  const uint8_t kind = stream.byte();
  if (kind == 0) return;
  if (kind > 2) throw Lost("an unknown kind of query");
  for (int i = 0; i < 3; ++i) stream.discard(stream.length());  // initial user, query, address
  if (revision >= kStartTime) stream.discard(8);
  const uint8_t interface = stream.byte();
  const bool tcp = interface == 1;
  if (tcp) {
    for (int i = 0; i < 3; ++i) stream.discard(stream.length());  // system user, host, client
    for (int i = 0; i < 3; ++i) stream.varint();               // version, revision
  } else if (interface == 2) {
    stream.discard(1);
    stream.discard(stream.length());
    if (revision >= kForwardedFor) stream.discard(stream.length());
    if (revision >= kReferer) stream.discard(stream.length());
  } else {
    throw Lost("an unknown interface of a client");
  }
  if (revision >= kQuotaKey) stream.discard(stream.length());
  if (revision >= kDistributedDepth) stream.varint();
  if (tcp && revision >= kVersionPatch) stream.varint();
  if (revision >= kTracing && stream.byte() != 0) {
    stream.discard(24);
    stream.discard(stream.length());
    stream.discard(1);
  }
  if (revision >= kParallelReplicas) {
    for (int i = 0; i < 3; ++i) stream.varint();
  }
}

bool ends(std::string_view name, std::string_view with) { return name.ends_with(with); }

// Before settings were texts, their type followed from their name, which only a server of that age
// knows. These are its texts; all others were numbers.
bool was_text(std::string_view name) {
  for (const std::string_view with :
       {"_mode", "_method", "_format", "_level", "_ratio", "_implementation", "_strictness",
        "_schema", "_path", "_threshold_ratio", "load_balancing", "totals_auto_threshold",
        "_delimiter", "_rule", "_probability"}) {
    if (ends(name, with)) return true;
  }
  return false;
}

void read_settings(Stream &stream, uint64_t revision) {
  while (true) {
    const std::string name = stream.text(kNameBytesMax);
    if (name.empty()) return;
    if (revision >= kSettingsAsText) {
      stream.varint();
      stream.discard(stream.length());
    } else if (was_text(name)) {
      stream.discard(stream.length());
    } else {
      stream.varint();
    }
  }
}

}  // namespace

void put_number(std::string *out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *out += static_cast<char>(value | 0x80);
  *out += static_cast<char>(value);
}

void put_text(std::string *out, const std::string &text) {
  put_number(out, text.size());
  *out += text;
}

bool has_addendum(uint64_t revision) { return revision >= kAddendum; }

Hello read_hello(Stream &stream) {
  Hello hello;
  hello.name = stream.text(kNameBytesMax);
  hello.major = stream.varint();
  hello.minor = stream.varint();
  hello.revision = stream.varint();
  hello.database = stream.text(kNameBytesMax);
  hello.user = stream.text(kNameBytesMax);
  hello.password = stream.text(kNameBytesMax);
  return hello;
}

std::string write_hello(const Hello &hello) {
  std::string out;
  put_number(&out, kClientHello);
  put_text(&out, hello.name);
  for (const uint64_t number : {hello.major, hello.minor, hello.revision}) put_number(&out, number);
  for (const std::string &text : {hello.database, hello.user, hello.password}) put_text(&out, text);
  return out;
}

Query read_query(Stream &stream, uint64_t revision) {
  Query query;
  stream.discard(stream.length());  // its id
  if (revision >= kClientInfo) read_client_info(stream, revision);
  read_settings(stream, revision);
  if (revision >= kServerSecret) stream.discard(stream.length());
  if (stream.varint() > 4) throw Lost("an unknown stage of a query");
  const uint64_t compression = stream.varint();
  if (compression > 1) throw Lost("an unknown kind of compression");
  query.compressed = compression == 1;
  query.text = stream.text(kQueryBytesMax);
  if (revision >= kParameters) read_settings(stream, revision);
  return query;
}

}  // namespace ring2::dmi
