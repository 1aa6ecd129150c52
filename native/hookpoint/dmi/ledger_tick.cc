// What happens to rows and requests as time goes by.

#include <algorithm>
#include <utility>
#include <vector>

#include "ledger.h"
#include "model.h"

namespace ring2::dmi {

void Ledger::release(uint64_t now, bool all) {
  std::vector<HeldRow> ready;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    for (auto &[name, model] : models_) {
      for (auto &[key, request] : model->requests) {
        std::deque<HeldRow> waiting;
        for (HeldRow &held : request.held) {
          bool exact = false;
          const bool known = step_of_logits(request, held.row, &exact) != nullptr || exact;
          held.row.settled = all || now >= held.until_ns;
          if (known || held.row.settled) ready.push_back(std::move(held));
          else waiting.push_back(std::move(held));
        }
        request.held = std::move(waiting);
      }
    }
  }
  // In order of their tokens: each may settle where the next one begins.
  std::sort(ready.begin(), ready.end(),
            [](const HeldRow &one, const HeldRow &other) { return one.row.end < other.row.end; });
  for (const HeldRow &held : ready) {
    Memory memory(held.data.data(), held.data.size());
    put(held.row, held.data.size(), memory);
    budget_.give(held.charged);
  }
}

void Ledger::end_over(Model &model, uint64_t now) {
  std::vector<std::pair<uint64_t, uint64_t>> quiet;  // by last row, then key
  for (const auto &[key, request] : model.requests) {
    if (request.held.empty() && now - std::min(now, request.last_ns) >= options_.settle_ns) {
      quiet.emplace_back(request.last_ns, key);
    }
  }
  std::sort(quiet.begin(), quiet.end());
  for (const auto &[last, key] : quiet) {
    const bool crowded =
        model.steps_kept > kStepsMax || model.requests.size() > kRequestsMax * 3 / 4;
    Request &request = model.requests.at(key);
    if (request.judged_ns != last && model.whole(request)) {
      model.end(key, nullptr);
      continue;
    }
    request.judged_ns = last;
    if (now - last >= options_.idle_ns || crowded) model.end(key, "idle");
  }
}

void Ledger::tick(uint64_t now) {
  release(now, false);
  const std::lock_guard<std::mutex> guard(lock_);
  if (spare_ != nullptr) ring2_producer_heartbeat(spare_->producer);
  for (auto &[name, model] : models_) {
    ring2_producer_heartbeat(model->producer);
    if (now - std::min(now, model->described_ns) >= kModelAgainNs) model->send_description(now);
    end_over(*model, now);
  }
}

void Ledger::end_all() {
  release(now_ns(), true);
  const std::lock_guard<std::mutex> guard(lock_);
  for (auto &[name, model] : models_) {
    while (!model->requests.empty()) {
      const auto &[key, request] = *model->requests.begin();
      model->end(key, model->whole(request) ? nullptr : "closed");
    }
  }
}

}  // namespace ring2::dmi
