// Types of columns, as far as is needed to know how many bytes a column has.
#ifndef RING2_DMI_TYPES_H
#define RING2_DMI_TYPES_H

#include <optional>
#include <string_view>
#include <vector>

#include "stream.h"

namespace ring2::dmi {

struct Type {
  enum Kind { kFixed, kText, kArray, kNullable, kTuple, kLowCardinality };
  Kind kind = kFixed;
  uint32_t bytes = 0;       // kFixed: of one value
  bool is_integer = false;  // kFixed
  bool is_signed = false;
  std::vector<Type> inner;
};

// Nothing for a type whose bytes cannot be counted.
std::optional<Type> parse_type(std::string_view text);

// Reads a column of so many rows and forgets it. Throws Lost when its lengths cannot be.
void skip_column(Stream &stream, const Type &type, uint64_t rows);

// One integer of up to 64 bits.
int64_t read_integer(Stream &stream, const Type &type);

}  // namespace ring2::dmi
#endif
