// What happened, for the log and for tests: counters, and one line for each kind of trouble.
#ifndef RING2_DMI_COUNTS_H
#define RING2_DMI_COUNTS_H

#include <atomic>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>

namespace ring2::dmi {

struct Counts {
  std::atomic<uint64_t> connections{0}, refused{0}, blocks{0}, rows{0}, rows_written{0},
      bytes_written{0}, requests{0}, steps{0}, not_wanted{0}, duplicates{0}, lost{0},
      unsupported{0}, foreign{0}, aborted{0}, blocks_damaged{0}, framing_lost{0}, tees_cut{0}, tees_left_out{0},
      answers_withheld{0}, silent{0}, stalled{0},
      crowded{0}, unfinished{0};

  std::string json() const;
};

// A line on standard error; of one kind only once.
void log_line(const std::string &text);
void log_once(const char *kind, const std::string &text);

// Quoted, with what JSON needs escaped; bytes that are no UTF-8 become '?'.
std::string json_text(const std::string &text);

}  // namespace ring2::dmi
#endif
