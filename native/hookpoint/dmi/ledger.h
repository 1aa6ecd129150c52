// From rows to records: which model, request and step a row belongs to, and when a request is over.
//
// Rows come over several connections in no order at all. A row's place is claimed under one lock,
// its bytes are received outside of it. Nothing throws but a stream, and nothing waits for an
// exporter.
#ifndef RING2_DMI_LEDGER_H
#define RING2_DMI_LEDGER_H

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "block.h"
#include "counts.h"
#include "ring2.h"

namespace ring2::dmi {

struct LedgerOptions {
  std::string directory;  // empty: the default of libring2
  std::string segment = "dmi";
  uint64_t payload_bytes = uint64_t{256} << 20;
  uint64_t settle_ns = 2 * kSecond;  // a request that lacks nothing is over after this silence
  uint64_t idle_ns = 30 * kSecond;   // any request is
};

struct HeldRow;
struct Model;

// Where a row's bytes go.
struct Place {
  enum Kind { kDrop, kClaimed, kHold };
  Kind kind = kDrop;
  std::shared_ptr<Model> model;
  ring2_claim claim = {};
  uint64_t request = 0;  // key, for giving the place back
  uint64_t step = 0;
  uint32_t entry = 0;
};

class Ledger : public RowSink {
 public:
  Ledger(const LedgerOptions &options, Counts &counts, Budget &budget);
  ~Ledger() override;
  // Opens the first segment, so that a name that is taken is told at the start. Empty: it went
  // well.
  std::string open();

  void take(const Row &row, uint64_t bytes, Stream &stream) override;
  void drop(Dropped why, uint64_t rows) override;

  // Ends what is over, sends MODEL again, beats. At least every kTickNs.
  void tick(uint64_t now);
  // No client is left, or the bridge ends: every request is over now.
  void end_all();
  void lose(uint32_t reason, uint64_t records, uint64_t bytes);

 private:
  Place place(const Row &row, uint64_t bytes);
  void put(const Row &row, uint64_t bytes, Stream &stream);
  Place refuse(const Row &row, uint64_t bytes, const char *wrong);
  // Writes logits that waited: those whose step is known by now, or all of them.
  void release(uint64_t now, bool all);
  void end_over(Model &model, uint64_t now);
  std::shared_ptr<Model> model_of(const std::string &name);
  void fill(const Place &place, uint64_t bytes, Stream &stream);
  void give_back(const Place &place);
  void hold(const Place &place, const Row &row, uint64_t bytes, Stream &stream);

  const LedgerOptions options_;
  Counts &counts_;
  Budget &budget_;
  std::mutex lock_;
  std::unordered_map<std::string, std::shared_ptr<Model>> models_;
  std::shared_ptr<Model> spare_;  // a segment that no model has yet
  uint32_t segments_opened_ = 0;
  uint64_t open_again_at_ = 0;
};

}  // namespace ring2::dmi
#endif
