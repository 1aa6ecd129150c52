// Prints the sizes, offsets and constants of the C headers as JSON, as the compiler sees them.
// native/gen/generate.ts turns that into collector/layout.gen.ts.
#include <cstddef>
#include <cstdio>

#include "ring2.h"

namespace {

bool first = true;

void constant(const char *name, long long value) {
  std::printf("%s\n    \"%s\": %lld", first ? "" : ",", name, value);
  first = false;
}

void begin(const char *name, size_t bytes) {
  std::printf("    \"%s\": { \"bytes\": %zu, \"fields\": {", name, bytes);
  first = true;
}

void field(const char *name, size_t offset, size_t bytes) {
  std::printf("%s\n      \"%s\": { \"offset\": %zu, \"bytes\": %zu }", first ? "" : ",", name, offset,
              bytes);
  first = false;
}

void end(bool last) { std::printf("\n    } }%s\n", last ? "" : ","); }

}  // namespace

#define CONSTANT(name) constant(#name, static_cast<long long>(name))
#define FIELD(type, member) field(#member, offsetof(type, member), sizeof(type::member))

int main() {
  std::printf("{\n  \"constants\": {");
  CONSTANT(RING2_LAYOUT_VERSION);
  CONSTANT(RING2_HEADER_BYTES);
  CONSTANT(RING2_HOOKS_MAX);
  CONSTANT(RING2_LAYERS_MAX);
  CONSTANT(RING2_DIMS_MAX);
  CONSTANT(RING2_STEP_ROWS_MAX);
  CONSTANT(RING2_BODY_BYTES_MAX);
  CONSTANT(RING2_LOSS_REASONS_MAX);
  CONSTANT(RING2_BUCKETS_MAX);
  CONSTANT(RING2_OK);
  CONSTANT(RING2_FULL);
  CONSTANT(RING2_SLICE_CONTIGUOUS);
  CONSTANT(RING2_SLICE_UNATTRIBUTED);
  CONSTANT(RING2_SLICE_HAS_CRC);
  CONSTANT(RING2_SLICE_EXTRA);
  CONSTANT(RING2_ACTION_DROP);
  CONSTANT(RING2_ACTION_STATS);
  CONSTANT(RING2_ACTION_TENSOR);
  CONSTANT(RING2_KIND_MODEL);
  CONSTANT(RING2_KIND_REQUEST);
  CONSTANT(RING2_KIND_STEP);
  CONSTANT(RING2_KIND_TENSOR);
  CONSTANT(RING2_KIND_REQUEST_END);
  CONSTANT(RING2_KIND_PROFILE);
  CONSTANT(RING2_KIND_GAP);
  CONSTANT(RING2_KIND_VOCABULARY);
  CONSTANT(RING2_STEP_EXTRA);
  CONSTANT(RING2_STEP_AGAIN);
  CONSTANT(RING2_CONTROL_SAMPLED_ONLY);
  CONSTANT(RING2_CONTROL_PREFILL);
  CONSTANT(RING2_CONTROL_ALL_REQUESTS);
  CONSTANT(RING2_CONTROL_SEQUENCE_CREATED);
  CONSTANT(RING2_PHASE_PREFILL);
  CONSTANT(RING2_PHASE_DECODE);
  CONSTANT(RING2_GROUP_OUTLIERS);
  CONSTANT(RING2_GROUP_ATTENTION);
  CONSTANT(RING2_GROUP_SEQUENCE);
  CONSTANT(RING2_GROUP_LAYERS);
  CONSTANT(RING2_GROUP_REPRESENTATION);
  CONSTANT(RING2_GROUP_ROUTER);
  CONSTANT(RING2_GROUP_KV);
  CONSTANT(RING2_GROUPS_ALL);
  CONSTANT(RING2_STAT_COUNT);
  CONSTANT(RING2_SIGNAL_COUNT);
  std::printf("\n  },\n  \"structs\": {\n");

  begin("ring2_slice", sizeof(ring2_slice));
  FIELD(ring2_slice, position);
  FIELD(ring2_slice, request_key);
  FIELD(ring2_slice, step);
  FIELD(ring2_slice, payload_offset);
  FIELD(ring2_slice, payload_bytes);
  FIELD(ring2_slice, captured_realtime_ns);
  FIELD(ring2_slice, kind);
  FIELD(ring2_slice, flags);
  FIELD(ring2_slice, dtype);
  FIELD(ring2_slice, hook);
  FIELD(ring2_slice, layer);
  FIELD(ring2_slice, phase);
  FIELD(ring2_slice, token_start);
  FIELD(ring2_slice, token_end);
  FIELD(ring2_slice, kv_offset);
  FIELD(ring2_slice, ndim);
  FIELD(ring2_slice, dims);
  FIELD(ring2_slice, strides);
  FIELD(ring2_slice, tp_rank);
  FIELD(ring2_slice, pp_rank);
  FIELD(ring2_slice, dp_rank);
  FIELD(ring2_slice, ep_rank);
  FIELD(ring2_slice, record_slices);
  FIELD(ring2_slice, slice_index);
  FIELD(ring2_slice, action);
  FIELD(ring2_slice, groups);
  FIELD(ring2_slice, prompt_tokens);
  FIELD(ring2_slice, crc32c);
  FIELD(ring2_slice, elements);
  FIELD(ring2_slice, nan_count);
  FIELD(ring2_slice, pos_inf_count);
  FIELD(ring2_slice, neg_inf_count);
  FIELD(ring2_slice, invalid_rows);
  FIELD(ring2_slice, skipped_rows);
  FIELD(ring2_slice, defined);
  FIELD(ring2_slice, top1_id);
  FIELD(ring2_slice, stats);
  end(false);

  begin("ring2_drain_result", sizeof(ring2_drain_result));
  FIELD(ring2_drain_result, slices);
  FIELD(ring2_drain_result, next_position);
  FIELD(ring2_drain_result, head_position);
  FIELD(ring2_drain_result, payload_bytes);
  FIELD(ring2_drain_result, finished);
  FIELD(ring2_drain_result, waiting);
  end(false);

  begin("ring2_segment_info", sizeof(ring2_segment_info));
  FIELD(ring2_segment_info, name);
  FIELD(ring2_segment_info, boot);
  FIELD(ring2_segment_info, meta_slots);
  FIELD(ring2_segment_info, payload_bytes);
  FIELD(ring2_segment_info, meta_head);
  FIELD(ring2_segment_info, meta_tail);
  FIELD(ring2_segment_info, payload_head);
  FIELD(ring2_segment_info, payload_tail);
  FIELD(ring2_segment_info, committed_records);
  FIELD(ring2_segment_info, committed_bytes);
  FIELD(ring2_segment_info, anchor_monotonic_ns);
  FIELD(ring2_segment_info, anchor_realtime_ns);
  FIELD(ring2_segment_info, producer_heartbeat_ns);
  FIELD(ring2_segment_info, consumer_heartbeat_ns);
  FIELD(ring2_segment_info, producer_pid);
  FIELD(ring2_segment_info, producer_alive);
  FIELD(ring2_segment_info, producer_closed);
  FIELD(ring2_segment_info, consumer_pid);
  FIELD(ring2_segment_info, losses);
  end(false);

  begin("ring2_point", sizeof(ring2_point));
  FIELD(ring2_point, signal);
  FIELD(ring2_point, hook);
  FIELD(ring2_point, layer);
  FIELD(ring2_point, phase);
  FIELD(ring2_point, count);
  FIELD(ring2_point, zero_count);
  FIELD(ring2_point, sum);
  FIELD(ring2_point, min);
  FIELD(ring2_point, max);
  FIELD(ring2_point, scale);
  FIELD(ring2_point, offset);
  FIELD(ring2_point, bucket_count);
  FIELD(ring2_point, exemplar_value);
  FIELD(ring2_point, exemplar_key);
  FIELD(ring2_point, exemplar_realtime_ns);
  FIELD(ring2_point, buckets);
  end(false);

  begin("ring2_counts", sizeof(ring2_counts));
  FIELD(ring2_counts, hook);
  FIELD(ring2_counts, layer);
  FIELD(ring2_counts, elements);
  FIELD(ring2_counts, nan);
  FIELD(ring2_counts, pos_inf);
  FIELD(ring2_counts, neg_inf);
  FIELD(ring2_counts, invalid_rows);
  FIELD(ring2_counts, skipped_rows);
  FIELD(ring2_counts, massive);
  end(false);

  begin("ring2_step_header", sizeof(ring2_step_header));
  FIELD(ring2_step_header, step);
  FIELD(ring2_step_header, row_count);
  FIELD(ring2_step_header, columns);
  FIELD(ring2_step_header, layout);
  FIELD(ring2_step_header, flags);
  FIELD(ring2_step_header, control_sequence);
  end(false);

  begin("ring2_control", sizeof(ring2_control));
  FIELD(ring2_control, sequence);
  FIELD(ring2_control, flags);
  FIELD(ring2_control, request_share);
  FIELD(ring2_control, decode_every);
  FIELD(ring2_control, nothing);
  FIELD(ring2_control, wanted);
  end(false);

  begin("ring2_step_row", sizeof(ring2_step_row));
  FIELD(ring2_step_row, request_key);
  FIELD(ring2_step_row, token_start);
  FIELD(ring2_step_row, token_end);
  FIELD(ring2_step_row, index);
  FIELD(ring2_step_row, row_offset);
  FIELD(ring2_step_row, kv_offset);
  FIELD(ring2_step_row, phase);
  end(false);

  begin("ring2_gap", sizeof(ring2_gap));
  FIELD(ring2_gap, losses);
  FIELD(ring2_gap, first_step);
  FIELD(ring2_gap, last_step);
  end(true);
  std::printf("  }\n}\n");
}
