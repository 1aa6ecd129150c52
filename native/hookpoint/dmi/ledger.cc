#include "ledger.h"

#include <algorithm>

#include "model.h"
#include "ring2_hooks.h"
#include "tensor.h"

namespace ring2::dmi {
namespace {

// One look at the model's state for one row.
struct Placing {
  Model &model;
  Counts &counts;
  uint64_t now;

  void announce(Request *request) {
    if (request->announced) return;
    model.send_description(now);
    const std::string text = "{\"key\":" + std::to_string(request->key) +
                             ",\"request_id\":" + json_text(request->id) + "}";
    request->announced =
        ring2_write_json(model.producer, RING2_KIND_REQUEST, text.data(), text.size()) == RING2_OK;
    if (request->announced) counts.requests += 1;
  }

  bool write_step(Request *request, Step *step, uint8_t flags) {
    const bool prefill = step->end - step->start > 1 || step->start == 0;
    ring2_step_header header = {};
    header.step = flags == 0 ? model.next_step++ : step->id;
    header.row_count = 1;
    header.columns = static_cast<uint32_t>(step->end - step->start);
    header.layout = RING2_STEP_BATCHED;
    header.flags = flags;
    header.control_sequence = step->control->sequence;
    ring2_step_row row = {};
    row.request_key = request->key;
    row.token_start = step->start;
    row.token_end = step->end;
    row.phase = prefill ? RING2_PHASE_PREFILL : RING2_PHASE_DECODE;
    if (ring2_write_step(model.producer, &header, &row) != RING2_OK) return false;
    step->id = header.step;
    step->announced = ++model.steps_announced;
    return true;
  }

  // Null: it cannot be told of now, and the row is lost.
  Step *step(Request *request, int32_t start, int32_t end) {
    const uint64_t place = step_place(start, end);
    const auto found = request->steps.find(place);
    if (found != request->steps.end()) {
      Step *const step = &found->second;
      const bool old = step->id >= 0 && model.steps_announced - step->announced > kStepsRemembered;
      if (old && !write_step(request, step, RING2_STEP_AGAIN)) return nullptr;
      return step;
    }
    if (model.steps_kept >= 2 * kStepsMax) return nullptr;
    Step step;
    step.start = start;
    step.end = end;
    step.control = model.control_now();
    const bool prefill = end - start > 1 || start == 0;
    const auto phase = prefill ? RING2_PHASE_PREFILL : RING2_PHASE_DECODE;
    const bool wanted =
        ring2_control_wants_nothing(step.control.get()) == 0 &&
        ring2_control_wants_request(step.control.get(), request->id.data(), request->id.size(),
                                    names_a_trace(request->id) ? 1 : 0) != 0 &&
        ring2_control_wants_tokens(step.control.get(), phase, start, end) != 0;
    if (wanted) {
      announce(request);
      if (!request->announced || !write_step(request, &step, 0)) return nullptr;
      request->steps_written += 1;
      counts.steps += 1;
    }
    model.steps_kept += 1;
    return &request->steps.emplace(place, std::move(step)).first->second;
  }
};

// Logits that wait for their step, with what is beside them.
uint64_t cost_of_held(const Row &row, uint64_t bytes) {
  return bytes + sizeof(HeldRow) + text_bytes(row);
}

}  // namespace

Ledger::Ledger(const LedgerOptions &options, Counts &counts, Budget &budget)
    : options_(options), counts_(counts), budget_(budget) {}

Ledger::~Ledger() = default;

std::string Ledger::open() {
  auto model = std::make_shared<Model>();
  model->segment = options_.segment;
  if (segments_opened_ > 0) (model->segment += '-') += std::to_string(segments_opened_ + 1);
  ring2_producer_options options = {};
  options.directory = options_.directory.empty() ? nullptr : options_.directory.c_str();
  options.name = model->segment.c_str();
  options.payload_bytes = options_.payload_bytes;
  options.when_full = RING2_WHEN_FULL_DROP;
  if (ring2_producer_open(&options, &model->producer) != RING2_OK) return ring2_last_error();
  segments_opened_ += 1;
  spare_ = std::move(model);
  return "";
}

std::shared_ptr<Model> Ledger::model_of(const std::string &name) {
  const auto found = models_.find(name);
  if (found != models_.end()) return found->second;
  const uint64_t now = now_ns();
  if (models_.size() >= kModelsMax) {
    auto oldest = models_.end();
    for (auto at = models_.begin(); at != models_.end(); ++at) {
      if (!at->second->requests.empty() || now - at->second->last_ns < kModelIdleNs) continue;
      if (oldest == models_.end() || at->second->last_ns < oldest->second->last_ns) oldest = at;
    }
    if (oldest == models_.end()) return nullptr;
    models_.erase(oldest);
  }
  if (spare_ == nullptr) {
    if (now < open_again_at_) return nullptr;
    open_again_at_ = now + 10 * kSecond;
    const std::string fault = open();
    if (!fault.empty()) {
      log_once("segment", "no segment for model " + name + ": " + fault);
      return nullptr;
    }
    open_again_at_ = 0;
  }
  std::shared_ptr<Model> model = std::move(spare_);
  model->facts.name = name;
  model->last_ns = now;
  log_line("model " + name + " in segment " + model->segment);
  models_.emplace(name, model);
  return model;
}

Place Ledger::refuse(const Row &row, uint64_t bytes, const char *wrong) {
  const auto known = models_.find(row.model_id);
  const auto &any = known != models_.end() ? known->second
                    : spare_ != nullptr    ? spare_
                                           : models_.begin()->second;
  ring2_count_loss(any->producer, RING2_LOSS_UNSUPPORTED, 1, bytes);
  counts_.unsupported += 1;
  std::string text = wrong;
  text += ": such rows are dropped, as of ";
  text.append(row.act_name).append(", ").append(row.dtype);
  log_once(wrong, text);
  return {};
}

Place Ledger::place(const Row &row, uint64_t bytes) {
  const std::lock_guard<std::mutex> guard(lock_);
  Place place;
  ring2_tensor tensor;
  const char *const wrong = describe(row, bytes, &tensor);
  if (wrong != nullptr) return refuse(row, bytes, wrong);
  place.model = model_of(row.model_id);
  if (place.model == nullptr) return refuse(row, bytes, "too many models at once");
  Model &model = *place.model;
  const uint64_t now = now_ns();
  model.last_ns = now;
  model.learn(tensor);
  const Entry entry = {tensor.hook, tensor.layer, tensor.tp_rank};
  Request *const request = model.request_of(row.request_id, now);
  if (request == nullptr || !model.known(entry, &place.entry)) {
    counts_.lost += 1;
    ring2_count_loss(model.producer, RING2_LOSS_STEP_LOST, 1, bytes);
    return place;
  }
  request->last_ns = now;
  int32_t start = static_cast<int32_t>(row.start), end = static_cast<int32_t>(row.end);
  if (ring2_hook_facts[tensor.hook].shape == RING2_SHAPE_REQUEST) {
    bool exact = false;
    const Step *const step = step_of_logits(*request, row, &exact);
    if (step != nullptr) start = step->start;
    else if (!exact && !row.settled && request->held.size() < kHeldRowsMax && budget_.take(cost_of_held(row, bytes))) {
      place.kind = Place::kHold;
      return place;
    }
  }
  Step *const step = Placing{model, counts_, now}.step(request, start, end);
  if (step == nullptr) {
    counts_.lost += 1;
    ring2_count_loss(model.producer, RING2_LOSS_STEP_LOST, 1, bytes);
    return place;
  }
  if (step->id < 0 || ring2_control_wants(step->control.get(), tensor.hook, tensor.layer) == 0) {
    counts_.not_wanted += 1;
    return place;
  }
  if (step->seen.size() <= place.entry / 64) step->seen.resize(place.entry / 64 + 1);
  uint64_t &seen = step->seen[place.entry / 64];
  const uint64_t bit = uint64_t{1} << (place.entry % 64);
  if ((seen & bit) != 0) {
    counts_.duplicates += 1;
    return place;
  }
  tensor.step = step->id;
  if (ring2_claim_tensor(model.producer, &tensor, &place.claim) != RING2_OK) {
    counts_.lost += 1;
    return place;
  }
  seen |= bit;
  place.kind = Place::kClaimed;
  place.request = request->key;
  place.step = step_place(start, end);
  return place;
}

void Ledger::take(const Row &row, uint64_t bytes, Stream &stream) {
  counts_.rows += 1;
  put(row, bytes, stream);
}

void Ledger::put(const Row &row, uint64_t bytes, Stream &stream) {
  const Place where = place(row, bytes);
  switch (where.kind) {
    case Place::kDrop:
      return stream.discard(bytes);
    case Place::kClaimed:
      return fill(where, bytes, stream);
    case Place::kHold:
      return hold(where, row, bytes, stream);
  }
}

void Ledger::fill(const Place &place, uint64_t bytes, Stream &stream) {
  const uint64_t patience = kClaimNs + bytes / (kClaimBytesPerSecond / 1000) * kMillisecond;
  const uint64_t deadline = now_ns() + patience;
  uint64_t got = 0;
  try {
    got = stream.until(static_cast<uint8_t *>(place.claim.payload), bytes, deadline);
  } catch (...) {
    give_back(place);
    throw;
  }
  if (got == bytes) {
    ring2_commit(place.model->producer, &place.claim);
    counts_.rows_written += 1;
    counts_.bytes_written += bytes;
    return;
  }
  give_back(place);
  stream.discard(bytes - got);
}

void Ledger::give_back(const Place &place) {
  ring2_abort(place.model->producer, &place.claim);
  counts_.aborted += 1;
  log_once("aborted", "a client stopped in the middle of a payload, which is dropped");
  const std::lock_guard<std::mutex> guard(lock_);
  const auto request = place.model->requests.find(place.request);
  if (request == place.model->requests.end()) return;
  const auto step = request->second.steps.find(place.step);
  // The same row may come again.
  if (step != request->second.steps.end()) {
    step->second.seen[place.entry / 64] &= ~(uint64_t{1} << (place.entry % 64));
  }
}

void Ledger::hold(const Place &place, const Row &row, uint64_t bytes, Stream &stream) {
  const uint64_t charged = cost_of_held(row, bytes);
  HeldRow held{row, {}, now_ns() + kHoldNs, charged};
  try {
    held.data.resize(bytes);
    stream.all(held.data.data(), bytes);
  } catch (...) {
    budget_.give(charged);
    drop(Dropped::kUnfinished, 1);
    throw;
  }
  const std::lock_guard<std::mutex> guard(lock_);
  const auto key = place.model->key_of.find(row.request_id);
  if (key == place.model->key_of.end()) {
    budget_.give(charged);
    counts_.lost += 1;
    ring2_count_loss(place.model->producer, RING2_LOSS_STEP_LOST, 1, bytes);
    return;
  }
  place.model->requests.at(key->second).held.push_back(std::move(held));
}

void Ledger::drop(Dropped why, uint64_t rows) {
  switch (why) {
    case Dropped::kForeign:
      counts_.foreign += rows;
      return log_once("foreign", "rows without the columns of DMI's table are dropped");
    case Dropped::kCrowded:
      counts_.crowded += rows;
      lose(RING2_LOSS_ABORTED, rows, 0);
      return log_once("crowded", "rows are dropped that clients' blocks have no memory for");
    case Dropped::kUnfinished:
      counts_.unfinished += rows;
      lose(RING2_LOSS_ABORTED, rows, 0);
      return log_once("unfinished", "rows are dropped of a block that does not come to its end");
  }
}

void Ledger::lose(uint32_t reason, uint64_t records, uint64_t bytes) {
  const std::lock_guard<std::mutex> guard(lock_);
  const auto &any = spare_ ? spare_ : models_.empty() ? nullptr : models_.begin()->second;
  if (any != nullptr) ring2_count_loss(any->producer, reason, records, bytes);
}

}  // namespace ring2::dmi
