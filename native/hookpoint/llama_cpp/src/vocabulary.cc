#include "vocabulary.h"

#include <optional>

#include "engine.h"
#include "options.h"

namespace ring2_llama {

namespace {

// A decode waits for the engine's lock no longer than such a step takes: some 50 microseconds.
constexpr int32_t kTextsAtOnce = 256;
constexpr int32_t kTextsMax = 1 << 20;
constexpr size_t kVocabularyBytesMax = size_t{64} << 20;
constexpr int32_t kPieceBytesMax = 4096;
// Leaves room for the other fields of a record below RING2_BODY_BYTES_MAX.
constexpr size_t kPartBytesMax = RING2_BODY_BYTES_MAX - 4096;
// Room for as many records of a part's size must be left, so that requests find some too.
constexpr uint64_t kRoomFactor = 4;
constexpr uint64_t kSlotsLeft = 64;

bool has_room(const ring2_producer *producer, uint64_t bytes) {
  const ring2_header *header = ring2_producer_header(producer);
  const auto between = [](const uint64_t *head, const uint64_t *tail) {
    return __atomic_load_n(head, __ATOMIC_RELAXED) - __atomic_load_n(tail, __ATOMIC_ACQUIRE);
  };
  const uint64_t records = between(&header->meta_head, &header->meta_tail);
  const uint64_t used = between(&header->payload_head, &header->payload_tail);
  return records + kSlotsLeft <= header->meta_slots &&
         used + kRoomFactor * bytes <= header->payload_bytes;
}

// `text` is valid UTF-8.
std::string json_text(const std::string &text) {
  std::string out = "\"";
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (code < 0x20) {
      out += "\\u00";
      out += "0123456789abcdef"[code >> 4];
      out += "0123456789abcdef"[code & 0xf];
      continue;
    }
    if (letter == '"' || letter == '\\') out += '\\';
    out += letter;
  }
  return out + '"';
}

bool is_utf8(const std::string &text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4) return false;
    const size_t more = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    if (i + more >= text.size()) return false;
    for (size_t j = 1; j <= more; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xc0) != 0x80) return false;
    }
    // Longer than needed, halves of surrogate pairs, and beyond U+10FFFF.
    const auto second = more == 0 ? 0x80U : static_cast<unsigned char>(text[i + 1]);
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f)) return false;
    if ((lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) return false;
    i += more + 1;
  }
  return true;
}

// What the id alone is in a text. Bytes that are only part of a character say nothing: such an id has
// its piece as the vocabulary writes it.
std::optional<std::string> text_of(const Facts &facts, const void *vocabulary, int32_t token) {
  char bytes[kPieceBytesMax];
  const int32_t length = facts.token_to_piece(vocabulary, token, bytes, kPieceBytesMax, 0, true);
  if (length < 0 || length > kPieceBytesMax) return std::nullopt;
  std::string text(bytes, static_cast<size_t>(length));
  if (is_utf8(text)) return text;
  const char *piece = facts.vocab_text(vocabulary, token);
  if (piece == nullptr) return std::nullopt;
  text = piece;
  if (text.size() > static_cast<size_t>(kPieceBytesMax) || !is_utf8(text)) return std::nullopt;
  return text;
}

void add(Vocabulary &vocabulary, const std::optional<std::string> &text) {
  const std::string length = text.has_value() ? std::to_string(text->size()) + ":" : "-:";
  vocabulary.digest.add(length.data(), length.size());
  if (text.has_value()) vocabulary.digest.add(text->data(), text->size());
  const std::string json = text.has_value() ? json_text(*text) : "null";
  std::vector<VocabularyPart> &parts = vocabulary.parts;
  if (parts.empty() || parts.back().texts.size() + json.size() + 1 > kPartBytesMax) {
    parts.push_back({vocabulary.read, ""});
  }
  std::string &texts = parts.back().texts;
  if (!texts.empty()) texts += ',';
  texts += json;
  vocabulary.bytes += json.size();
  ++vocabulary.read;
}

VocabularyState end(Vocabulary &vocabulary, const char *why) {
  if (why != nullptr) say("llama.cpp: the texts of token ids are not sent: %s", why);
  vocabulary = {};
  vocabulary.over = true;
  return VocabularyState::kOver;
}

VocabularyState read_some(Engine &engine) {
  Vocabulary &vocabulary = engine.vocabulary;
  const Facts &facts = *engine.facts;
  const void *texts = facts.get_vocab(facts.get_model(engine.context));
  const int32_t count = facts.vocab_n_tokens(texts);
  if (count <= 0) return end(vocabulary, nullptr);
  if (count > kTextsMax) return end(vocabulary, "expected at most 1048576 of them");
  for (int32_t i = 0; i < kTextsAtOnce && vocabulary.read < count; ++i) {
    add(vocabulary, text_of(facts, texts, vocabulary.read));
  }
  if (vocabulary.bytes > kVocabularyBytesMax) return end(vocabulary, "they are larger than 64 MiB");
  if (vocabulary.read == count) vocabulary.fingerprint = vocabulary.digest.finish();
  return VocabularyState::kGoesOn;
}

VocabularyState write_part(Engine &engine) {
  Vocabulary &vocabulary = engine.vocabulary;
  const VocabularyPart &part = vocabulary.parts[vocabulary.sent];
  const std::string body = "{\"model\":\"" + engine.model + "\",\"fingerprint\":\"" +
                           vocabulary.fingerprint +
                           "\",\"parts\":" + std::to_string(vocabulary.parts.size()) +
                           ",\"part\":" + std::to_string(vocabulary.sent) +
                           ",\"first_id\":" + std::to_string(part.first) + ",\"texts\":[" + part.texts +
                           "]}";
  if (!has_room(engine.producer, body.size())) return VocabularyState::kWaits;
  const int written =
      ring2_write_json(engine.producer, RING2_KIND_VOCABULARY, body.data(), body.size());
  if (written == RING2_FULL) return VocabularyState::kWaits;
  if (written != RING2_OK) return end(vocabulary, ring2_last_error());
  ++vocabulary.sent;
  return VocabularyState::kGoesOn;
}

}  // namespace

VocabularyState send_vocabulary(Engine &engine) {
  Vocabulary &vocabulary = engine.vocabulary;
  if (vocabulary.over) return VocabularyState::kOver;
  if (!engine.announced) return VocabularyState::kWaits;
  if (vocabulary.fingerprint.empty()) return read_some(engine);
  if (vocabulary.sent < vocabulary.parts.size()) return write_part(engine);
  // Announced last: a request that names a vocabulary can count on its parts.
  if (!has_room(engine.producer, RING2_BODY_BYTES_MAX)) return VocabularyState::kWaits;
  if (write_model(engine, vocabulary.fingerprint) == RING2_FULL) return VocabularyState::kWaits;
  return end(vocabulary, nullptr);
}

}  // namespace ring2_llama
