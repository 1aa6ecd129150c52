#include "block.h"

#include <algorithm>
#include <memory>

namespace ring2::dmi {
namespace {

constexpr uint64_t kRevisionBlockInfo = 51903;
constexpr uint64_t kRevisionCustomForm = 54454;

enum Field : unsigned {
  kModel, kRequest, kAct, kLayer, kShard, kStart, kEnd, kDtype, kShape, kBytes, kFields
};
constexpr std::string_view kNames[kFields] = {
    "model_id", "request_id", "act_name", "layer_no", "shard_rank", "start_token_idx",
    "end_token_idx", "dtype", "shape", "bytes"};
constexpr unsigned kFacts = (1u << kBytes) - 1;

// A payload whose row is not known yet.
struct Held {
  std::unique_ptr<uint8_t[]> data;
  uint64_t bytes = 0;
  bool kept = false;
};

class Block {
 public:
  Block(Stream &stream, uint64_t rows, RowSink &sink, Budget &budget)
      : stream_(stream), sink_(sink), budget_(budget), charge_(budget, kRowsFreeBytes),
        count_(rows) {
    kept_ = std::min(rows, kBlockRowsMax);
  }
  ~Block() {
    for (const Held &held : held_) if (held.kept) budget_.give(held.bytes);
  }

  // False: a column that is none of ours, or not of the type that ours has.
  bool column(std::string_view name, const Type &type) {
    const auto *const found = std::find(std::begin(kNames), std::end(kNames), name);
    const auto field = static_cast<unsigned>(found - std::begin(kNames));
    if (field == kFields || (have_ & 1u << field) != 0 || !fits(field, type)) return false;
    if (field == kBytes) payloads();
    else if (field == kShape) shapes(type.inner[0]);
    else for (uint64_t i = 0; i < count_; ++i) value(field, type, i);
    have_ |= 1u << field;
    return true;
  }

  // After the last column.
  void finish() {
    const bool complete = have_ == (1u << kFields) - 1;
    if (!complete) return sink_.drop(Dropped::kForeign, count_);
    if (count_ > kept_) sink_.drop(Dropped::kCrowded, count_ - kept_);
    for (uint64_t i = 0; i < std::min<uint64_t>(held_.size(), kept_); ++i) {
      if (!held_[i].kept) {
        sink_.drop(Dropped::kCrowded, 1);
        continue;
      }
      Memory memory(held_[i].data.get(), held_[i].bytes);
      sink_.take(rows_[i], held_[i].bytes, memory);
    }
  }

  // Instead of finish(): those whose facts have come, and that the sink has not seen.
  void unfinished() {
    const uint64_t begun = std::min<uint64_t>(std::max(rows_.size(), held_.size()), kept_);
    if (begun > taken_) sink_.drop(Dropped::kUnfinished, begun - taken_);
  }

 private:
  static bool fits(unsigned field, const Type &type) {
    if (field == kShape) return type.kind == Type::kArray && type.inner[0].is_integer;
    if (field >= kLayer && field <= kEnd) return type.is_integer;
    return type.kind == Type::kText;
  }

  // Rows are made as their values come, not by the number that the block names. Null: there is no
  // memory for this one, and none behind it is kept either.
  Row *row_at(uint64_t index) {
    if (index < rows_.size()) return &rows_[index];
    if (!charge(index, kRowBytes)) return nullptr;
    return &rows_.emplace_back();
  }

  bool charge(uint64_t index, uint64_t bytes) {
    if (charge_.add(bytes)) return true;
    kept_ = index;
    return false;
  }

  void value(unsigned field, const Type &type, uint64_t index) {
    Row *const kept = index < kept_ ? row_at(index) : nullptr;
    if (kept == nullptr) {
      if (type.kind == Type::kText) stream_.discard(stream_.length());
      else stream_.discard(type.bytes);
      return;
    }
    Row &row = *kept;
    if (field >= kLayer && field <= kEnd) {
      int64_t *const places[] = {&row.layer, &row.shard, &row.start, &row.end};
      *places[field - kLayer] = read_integer(stream_, type);
      return;
    }
    bool whole = true;
    // Texts are charged as they come: at most kIdBytesMax before it is known.
    std::string text = stream_.text(kIdBytesMax, &whole);
    if (!whole || text.empty()) row.broken = true;
    if (!charge(index, text.size())) return;
    std::string &place = field == kModel     ? row.model_id
                         : field == kRequest ? row.request_id
                         : field == kAct     ? row.act_name
                                             : row.dtype;
    place = std::move(text);
  }

  void shapes(const Type &element) {
    std::vector<uint64_t> ends;
    uint64_t last = 0;
    for (uint64_t i = 0; i < count_; ++i) {
      const uint64_t end = stream_.fixed<uint64_t>();
      if (end < last) throw Lost("offsets of an array that fall");
      last = end;
      if (i < kept_ && charge(i, 2 * sizeof end)) ends.push_back(end);
    }
    uint64_t at = 0;
    for (uint64_t i = 0; i < kept_; ++i) {
      Row *const kept = row_at(i);
      if (kept == nullptr) break;
      Row &row = *kept;
      if (ends[i] - at > kShapeMax) row.broken = true;
      for (; at < ends[i]; ++at) {
        if (row.broken) stream_.discard(element.bytes);
        else row.shape[row.ndim++] = read_integer(stream_, element);
      }
    }
    for (; at < last; ++at) stream_.discard(element.bytes);
  }

  void payloads() {
    const bool known = (have_ & kFacts) == kFacts;
    for (uint64_t i = 0; i < count_; ++i) {
      const uint64_t bytes = stream_.length();
      if (i >= kept_ || (!known && !charge(i, 2 * sizeof(Held)))) {
        stream_.discard(bytes);
      } else if (known) {
        taken_ += 1;
        sink_.take(rows_[i], bytes, stream_);
      } else {
        hold(held_.emplace_back(), bytes);
      }
    }
  }

  void hold(Held &held, uint64_t bytes) {
    held.bytes = bytes;
    if (!budget_.take(bytes)) return stream_.discard(bytes);
    held.kept = true;
    // Not cleared first: every byte is read into, or the block is given up.
    held.data.reset(new uint8_t[std::max<uint64_t>(bytes, 1)]);
    stream_.all(held.data.get(), bytes);
  }

  Stream &stream_;
  RowSink &sink_;
  Budget &budget_;
  Charge charge_;  // of rows_, their texts and what is beside them
  uint64_t count_;
  uint64_t kept_;       // of the rows: facts of the first so many
  uint64_t taken_ = 0;  // by the sink, before the block's end
  unsigned have_ = 0;
  std::vector<Row> rows_;
  std::vector<Held> held_;
};

void read_columns(Stream &stream, uint64_t revision, const BlockFacts &facts, Block *block) {
  for (uint64_t i = 0; i < facts.columns; ++i) {
    const std::string name = stream.text(kNameBytesMax);
    const std::string text = stream.text(kNameBytesMax);
    const bool custom = revision >= kRevisionCustomForm && stream.byte() != 0;
    const auto type = parse_type(text);
    if (custom || (!type && facts.rows > 0)) {
      throw Damaged("column " + name.substr(0, 64) + " of type " + text.substr(0, 64));
    }
    if (facts.rows == 0 || (block != nullptr && block->column(name, *type))) continue;
    skip_column(stream, *type, facts.rows);
  }
}

void read_info(Stream &stream) {
  while (true) {
    switch (stream.varint()) {
      case 0:
        return;
      case 1:
        stream.discard(1);
        break;
      case 2:
        stream.discard(4);
        break;
      default:
        throw Lost("an unknown fact about a block");
    }
  }
}

}  // namespace

uint64_t text_bytes(const Row &row) {
  return row.model_id.size() + row.request_id.size() + row.act_name.size() + row.dtype.size();
}

BlockFacts read_block(Stream &stream, uint64_t revision, RowSink *sink, Budget &budget) {
  if (revision >= kRevisionBlockInfo) read_info(stream);
  BlockFacts facts;
  facts.columns = stream.varint();
  facts.rows = stream.varint();
  if (facts.columns > kColumnsMax) throw Lost(std::to_string(facts.columns) + " columns");
  if (facts.rows > kStringBytesMax) throw Lost(std::to_string(facts.rows) + " rows");
  std::optional<Block> block;
  if (sink != nullptr && facts.rows > 0) block.emplace(stream, facts.rows, *sink, budget);
  try {
    read_columns(stream, revision, facts, block ? &*block : nullptr);
  } catch (...) {
    if (block) block->unfinished();
    throw;
  }
  if (block) block->finish();
  return facts;
}

}  // namespace ring2::dmi
