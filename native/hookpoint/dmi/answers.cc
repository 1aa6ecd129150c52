#include "answers.h"

#include <algorithm>

#include "block.h"
#include "frames.h"
#include "packets.h"

namespace ring2::dmi {
namespace {

constexpr uint64_t kBlockInfo = 51903, kTotalRows = 51554, kTimezone = 54058, kDisplayName = 54372,
                   kVersionPatch = 54401, kWrittenRows = 54420, kCustomForm = 54454;

std::string block_start(uint64_t revision, uint64_t columns, uint64_t rows) {
  std::string out;
  if (revision >= kBlockInfo) out = std::string("\x01\x00\x02\xff\xff\xff\xff\x00", 8);
  put_number(&out, columns);
  put_number(&out, rows);
  return out;
}

void put_column(std::string *out, const std::string &name, const std::string &type,
                uint64_t revision) {
  put_text(out, name);
  put_text(out, type);
  if (revision >= kCustomForm) *out += '\0';
}

std::string data_packet(const std::string &block, bool compressed) {
  std::string out;
  put_number(&out, kServerData);
  put_text(&out, "");
  return out + (compressed ? as_frame(block) : block);
}

ServerHello read_server_hello(Stream &stream, uint64_t client_revision) {
  ServerHello hello;
  const std::string name = stream.text(kNameBytesMax);
  const uint64_t major = stream.varint();
  const uint64_t minor = stream.varint();
  hello.revision = stream.varint();
  const uint64_t both = std::min(client_revision, hello.revision);
  std::string out;
  put_number(&out, kServerHello);
  put_text(&out, name);
  put_number(&out, major);
  put_number(&out, minor);
  hello.revision = std::min(hello.revision, kRevision);
  put_number(&out, hello.revision);
  if (both >= kTimezone) put_text(&out, stream.text(kNameBytesMax));
  if (both >= kDisplayName) put_text(&out, stream.text(kNameBytesMax));
  if (both >= kVersionPatch) put_number(&out, stream.varint());
  hello.clamped = out;
  return hello;
}

std::string read_exception(Stream &stream) {
  std::string text;
  for (int depth = 0; depth < 16; ++depth) {
    stream.discard(4);
    const std::string name = stream.text(kNameBytesMax);
    const std::string message = stream.text(kNameBytesMax);
    stream.discard(stream.length());
    if (depth == 0) text = name + ": " + message;
    if (stream.byte() == 0) return text;
  }
  throw Lost("an exception without an end");
}

void read_server_block(Plain &stream, uint64_t revision, bool compressed, Budget &budget) {
  stream.discard(stream.length());
  if (!compressed) {
    read_block(stream, revision, nullptr, budget);
    return;
  }
  Frames frames(stream, budget);
  read_block(frames, revision, nullptr, budget);
}

void read_body(Plain &stream, uint64_t client_revision, uint64_t revision, bool compressed,
               Budget &budget, Answer *answer) {
  switch (answer->kind) {
    case kServerHello:
      answer->hello = read_server_hello(stream, client_revision);
      return;
    case kServerException:
      answer->text = read_exception(stream);
      return;
    case kServerData:
    case kServerTotals:
    case kServerExtremes:
      return read_server_block(stream, revision, compressed, budget);
    case kServerLog:
    case kServerProfileEvents:
      return read_server_block(stream, revision, false, budget);
    case kServerProgress: {
      const int numbers = 2 + (revision >= kTotalRows ? 1 : 0) + (revision >= kWrittenRows ? 2 : 0);
      for (int i = 0; i < numbers; ++i) stream.varint();
      return;
    }
    case kServerPong:
    case kServerEndOfStream:
      return;
    case kServerProfileInfo:
      for (int i = 0; i < 3; ++i) stream.varint();
      stream.discard(1);
      stream.varint();
      stream.discard(1);
      return;
    case kServerTableColumns:
      stream.discard(stream.length());
      stream.discard(stream.length());
      return;
    default:
      throw Lost("packet " + std::to_string(answer->kind) + " of a server");
  }
}

}  // namespace

std::string hello_answer(uint64_t client_revision) {
  const uint64_t both = std::min(client_revision, kRevision);
  std::string out;
  put_number(&out, kServerHello);
  put_text(&out, "ClickHouse");
  put_number(&out, 22);
  put_number(&out, 8);
  put_number(&out, kRevision);
  if (both >= kTimezone) put_text(&out, "UTC");
  if (both >= kDisplayName) put_text(&out, "ring2-dmi-bridge");
  if (both >= kVersionPatch) put_number(&out, 0);
  return out;
}

std::string pong_answer() { return std::string(1, static_cast<char>(kServerPong)); }
std::string end_answer() { return std::string(1, static_cast<char>(kServerEndOfStream)); }

std::string header_answer(const Columns &columns, uint64_t revision, bool compressed) {
  std::string block = block_start(revision, columns.size(), 0);
  for (const auto &[name, type] : columns) put_column(&block, name, type, revision);
  return data_packet(block, compressed);
}

std::string literal_answer(uint8_t value, uint64_t revision, bool compressed) {
  std::string out;
  for (const uint64_t rows : {uint64_t{0}, uint64_t{1}}) {
    std::string block = block_start(revision, 1, rows);
    put_column(&block, std::to_string(value), "UInt8", revision);
    if (rows == 1) block += static_cast<char>(value);
    out += data_packet(block, compressed);
  }
  return out + end_answer();
}

std::string exception_answer(const std::string &text) {
  constexpr uint32_t kNotImplemented = 48;
  std::string out;
  put_number(&out, kServerException);
  out.append(reinterpret_cast<const char *>(&kNotImplemented), sizeof kNotImplemented);
  put_text(&out, "DB::Exception");
  put_text(&out, text);
  put_text(&out, "");
  return out + '\0';
}

Answer read_answer(const std::vector<uint8_t> &from, uint64_t client_revision, uint64_t revision,
                   bool compressed, Budget &budget) {
  Answer answer;
  if (from.empty()) return answer;
  Memory memory(from.data(), from.size());
  try {
    answer.kind = memory.varint();
    read_body(memory, client_revision, revision, compressed, budget, &answer);
    answer.bytes = from.size() - memory.left();
  } catch (const Gone &) {
    answer.bytes = 0;
  }
  return answer;
}

}  // namespace ring2::dmi
