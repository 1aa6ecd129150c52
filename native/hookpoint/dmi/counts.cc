#include "counts.h"

#include <cstdio>
#include <utility>

namespace ring2::dmi {

std::string Counts::json() const {
  const std::pair<const char *, const std::atomic<uint64_t> *> all[] = {
      {"connections", &connections},
      {"connections_refused", &refused},
      {"connections_silent", &silent},
      {"connections_stalled", &stalled},
      {"blocks", &blocks},
      {"rows", &rows},
      {"rows_written", &rows_written},
      {"bytes_written", &bytes_written},
      {"requests", &requests},
      {"steps", &steps},
      {"rows_not_wanted", &not_wanted},
      {"rows_duplicate", &duplicates},
      {"rows_lost", &lost},
      {"rows_unsupported", &unsupported},
      {"rows_foreign", &foreign},
      {"rows_aborted", &aborted},
      {"rows_crowded", &crowded},
      {"rows_unfinished", &unfinished},
      {"blocks_damaged", &blocks_damaged},
      {"connections_framing_lost", &framing_lost},
      {"tees_cut", &tees_cut},
      {"tees_left_out", &tees_left_out},
      {"answers_withheld", &answers_withheld}};
  std::string text = "{";
  for (const auto &[name, count] : all) {
    if (text.size() > 1) text += ", ";
    text += '"';
    text += name;
    text += "\": ";
    text += std::to_string(count->load());
  }
  return text + "}";
}

void log_line(const std::string &text) {
  std::string line = "ring2-dmi-bridge: ";
  // What clients say stands in these lines.
  for (const char letter : text) {
    line += static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f ? '?' : letter;
  }
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void log_once(const char *kind, const std::string &text) {
  static std::mutex lock;
  static std::set<std::string> said;
  {
    const std::lock_guard<std::mutex> guard(lock);
    if (!said.insert(kind).second) return;
  }
  log_line(text + " (said once; counted when the bridge ends)");
}

namespace {

// Bytes of the character that begins here; 0: no UTF-8.
size_t character(const std::string &text, size_t at) {
  const auto byte = [&](size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto tail = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first < 0xf0) {
    if (!tail(1) || !tail(2)) return 0;
    if (first == 0xe0 && byte(1) < 0xa0) return 0;
    return first == 0xed && byte(1) >= 0xa0 ? 0 : 3;
  }
  if (first < 0xf0 || first > 0xf4 || !tail(1) || !tail(2) || !tail(3)) return 0;
  if (first == 0xf0 && byte(1) < 0x90) return 0;
  return first == 0xf4 && byte(1) >= 0x90 ? 0 : 4;
}

}  // namespace

std::string json_text(const std::string &text) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = character(text, at);
    const auto letter = static_cast<unsigned char>(text[at]);
    if (bytes == 0) out += '?';
    else if (letter == '"' || letter == '\\') (out += '\\') += text[at];
    else if (letter < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", letter);
      out += escaped;
    } else out += text.substr(at, bytes);
    at += bytes == 0 ? 1 : bytes;
  }
  return out += '"';
}

}  // namespace ring2::dmi
