#include "types.h"

#include <charconv>
#include <string>

namespace ring2::dmi {
namespace {

struct Named {
  std::string_view name;
  uint32_t bytes;
  char integer;  // 's', 'u', or 0
};

constexpr Named kFixedTypes[] = {
    {"Int8", 1, 's'},     {"Int16", 2, 's'},     {"Int32", 4, 's'},    {"Int64", 8, 's'},
    {"UInt8", 1, 'u'},    {"UInt16", 2, 'u'},    {"UInt32", 4, 'u'},   {"UInt64", 8, 'u'},
    {"Int128", 16, 0},    {"Int256", 32, 0},     {"UInt128", 16, 0},   {"UInt256", 32, 0},
    {"Float32", 4, 0},    {"Float64", 8, 0},     {"BFloat16", 2, 0},   {"Bool", 1, 'u'},
    {"Date", 2, 0},       {"Date32", 4, 0},      {"DateTime", 4, 0},   {"DateTime64", 8, 0},
    {"Decimal32", 4, 0},  {"Decimal64", 8, 0},   {"Decimal128", 16, 0}, {"Decimal256", 32, 0},
    {"UUID", 16, 0},      {"IPv4", 4, 0},        {"IPv6", 16, 0},      {"Enum8", 1, 0},
    {"Enum16", 2, 0},     {"Nothing", 1, 0},
};

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// The parts of a list, by its outer commas. Quotes protect what they hold.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t from = 0;
  int depth = 0;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i];
    if (quote != 0) {
      if (letter == '\\') ++i;
      else if (letter == quote) quote = 0;
    } else if (letter == '\'' || letter == '`' || letter == '"') quote = letter;
    else if (letter == '(') ++depth;
    else if (letter == ')') --depth;
    else if (letter == ',' && depth == 0) {
      parts.push_back(trim(text.substr(from, i - from)));
      from = i + 1;
    }
  }
  parts.push_back(trim(text.substr(from)));
  return parts;
}

std::optional<uint32_t> number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Parser {
  uint32_t parts = 0;

  std::optional<Type> one(std::string_view text, uint32_t depth) {
    if (depth > kTypeDepthMax || ++parts > kTypePartsMax) return std::nullopt;
    text = trim(text);
    const size_t open = text.find('(');
    const std::string_view name = text.substr(0, open);
    std::string_view inside;
    if (open != std::string_view::npos) {
      if (text.back() != ')') return std::nullopt;
      inside = text.substr(open + 1, text.size() - open - 2);
    }
    for (const Named &known : kFixedTypes) {
      if (known.name == name) {
        return Type{Type::kFixed, known.bytes, known.integer != 0, known.integer == 's', {}};
      }
    }
    if (name.starts_with("Interval")) return Type{Type::kFixed, 8, false, false, {}};
    if (name == "String") return Type{Type::kText, 0, false, false, {}};
    if (inside.empty()) return std::nullopt;
    return nested(name, split(inside), depth);
  }

  std::optional<Type> nested(std::string_view name, const std::vector<std::string_view> &inside,
                             uint32_t depth) {
    if (name == "FixedString" || name == "Decimal") return counted(name, inside.front());
    if (name == "SimpleAggregateFunction" && inside.size() == 2) return one(inside[1], depth + 1);
    Type type;
    if (name == "Array") type.kind = Type::kArray;
    else if (name == "Nullable") type.kind = Type::kNullable;
    else if (name == "LowCardinality") type.kind = Type::kLowCardinality;
    else if (name == "Tuple" || name == "Map") type.kind = Type::kTuple;
    else return std::nullopt;
    if (type.kind != Type::kTuple && inside.size() != 1) return std::nullopt;
    for (std::string_view part : inside) {
      // An element of a tuple may have a name before its type.
      const size_t space = part.substr(0, part.find('(')).find(' ');
      if (type.kind == Type::kTuple && space != std::string_view::npos) part.remove_prefix(space);
      const auto inner = one(part, depth + 1);
      if (!inner) return std::nullopt;
      type.inner.push_back(*inner);
    }
    if (name != "Map") return type;
    Type pairs{Type::kArray, 0, false, false, {type}};
    return type.inner.size() == 2 ? std::optional(pairs) : std::nullopt;
  }

  std::optional<Type> counted(std::string_view name, std::string_view text) {
    const auto value = number(text);
    if (!value || *value == 0) return std::nullopt;
    uint32_t bytes = *value;
    if (name == "Decimal") {
      if (bytes > 76) return std::nullopt;
      bytes = bytes <= 9 ? 4 : bytes <= 18 ? 8 : bytes <= 38 ? 16 : 32;
    }
    return Type{Type::kFixed, bytes, false, false, {}};
  }
};

void skip_fixed(Stream &stream, uint64_t rows, uint64_t bytes) {
  uint64_t all;
  if (__builtin_mul_overflow(rows, bytes, &all) || all > kStringBytesMax) {
    throw Lost("a column of " + std::to_string(rows) + " values");
  }
  stream.discard(all);
}

// What some columns have once, before their values.
void skip_prefix(Stream &stream, const Type &type) {
  if (type.kind == Type::kLowCardinality) stream.discard(8);
  for (const Type &inner : type.inner) {
    if (type.kind != Type::kLowCardinality) skip_prefix(stream, inner);
  }
}

void skip_values(Stream &stream, const Type &type, uint64_t rows);

void skip_low_cardinality(Stream &stream, const Type &type, uint64_t rows) {
  const uint64_t flags = stream.fixed<uint64_t>();
  if ((flags & 0xff) > 3 || (flags & 0x100) != 0) throw Damaged("a shared dictionary");
  // A null is a key of its own; the keys are of the type inside.
  const Type &keys = type.inner[0].kind == Type::kNullable ? type.inner[0].inner[0] : type.inner[0];
  if ((flags & 0x200) != 0) skip_values(stream, keys, stream.fixed<uint64_t>());
  if (stream.fixed<uint64_t>() != rows) throw Damaged("another number of rows in a dictionary");
  skip_fixed(stream, rows, uint64_t{1} << (flags & 0xff));
}

void skip_values(Stream &stream, const Type &type, uint64_t rows) {
  if (rows == 0) return;
  switch (type.kind) {
    case Type::kFixed:
      return skip_fixed(stream, rows, type.bytes);
    case Type::kText:
      for (uint64_t row = 0; row < rows; ++row) stream.discard(stream.length());
      return;
    case Type::kNullable:
      skip_fixed(stream, rows, 1);
      return skip_values(stream, type.inner[0], rows);
    case Type::kTuple:
      for (const Type &inner : type.inner) skip_values(stream, inner, rows);
      return;
    case Type::kLowCardinality:
      return skip_low_cardinality(stream, type, rows);
    case Type::kArray: {
      skip_fixed(stream, rows - 1, 8);
      return skip_values(stream, type.inner[0], stream.fixed<uint64_t>());
    }
  }
}

}  // namespace

std::optional<Type> parse_type(std::string_view text) { return Parser{}.one(text, 0); }

void skip_column(Stream &stream, const Type &type, uint64_t rows) {
  if (rows == 0) return;
  skip_prefix(stream, type);
  skip_values(stream, type, rows);
}

int64_t read_integer(Stream &stream, const Type &type) {
  uint64_t value = 0;
  stream.all(&value, type.bytes);
  if (!type.is_signed || type.bytes == 8) return static_cast<int64_t>(value);
  const unsigned shift = 64 - 8 * type.bytes;
  return static_cast<int64_t>(value << shift) >> shift;
}

}  // namespace ring2::dmi
