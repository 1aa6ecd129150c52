// The rows of one slice of the residual stream on their way through the statistics, a few at a
// time: what the comparison of layers has read from memory, the likeness of tokens reads from the
// cache.
#ifndef RING2_TRACK_STREAM_H
#define RING2_TRACK_STREAM_H

#include <cstdint>

#include "track_state.h"

namespace ring2 {

constexpr uint32_t kStreamRows = 8;

// Whether a row of this sum of squares is finite and at least kNormMin long.
bool has_direction(double squares);

// Likeness of the tokens of a prefill slice, or of the window that a decode slice goes on.
class StreamRows {
 public:
  StreamRows(const SliceContext &context, ElementType type, const Place &stream,
             ring2_track *track, TrackedRequest *request);

  bool wanted() const { return wanted_; }
  // Rows first to first + count - 1 with their sums of squares; count <= kStreamRows.
  void add(uint64_t first, const double *squares, uint64_t count);
  void publish();

 private:
  bool takes(uint64_t row, double squares);
  void add_prefill(uint64_t first, const double *squares, uint64_t count);
  void add_decode(uint64_t row, double squares);
  void flush_part();
  double centred_squares(double count);
  void publish_prefill();
  void publish_participation();
  void publish_likeness(double count, double unit_squares, double centred, double squares);

  const SliceContext &context_;
  ElementType type_;
  const Place &stream_;
  ring2_track *track_;
  TrackedRequest *request_;
  bool wanted_, prefill_;
  uint64_t left_out_ = 0;  // rows that are zero or not finite
  uint64_t used_ = 0;
  double squares_ = 0;
};

}  // namespace ring2
#endif
