/* What Python needs of ring2.h in a form that ctypes can call without knowing any struct.
 *
 * Thin: each function fills a struct of ring2.h or reads a word of the segment's header. The layout
 * of shared memory is thus known to C alone.
 */
#include <string.h>

#include "ring2.h"
#include "ring2_cuda.h"

#define ROW_VALUES 7 /* int64 values per row that ring2_python_step takes */

RING2_API int ring2_python_open(const char *directory, const char *name, uint64_t payload_bytes,
                                uint32_t when_full, uint32_t block_timeout_us,
                                ring2_producer **out);
RING2_API int ring2_python_room(const ring2_producer *producer, uint64_t bytes);
RING2_API int ring2_python_step(ring2_producer *producer, int64_t step, uint32_t layout,
                                uint32_t flags, uint32_t control_sequence, uint32_t columns,
                                uint32_t row_count, const int64_t *values);
RING2_API int ring2_python_losses(const ring2_producer *producer, uint64_t *records,
                                  uint64_t *bytes);

int ring2_python_open(const char *directory, const char *name, uint64_t payload_bytes,
                      uint32_t when_full, uint32_t block_timeout_us, ring2_producer **out) {
  ring2_producer_options options;
  memset(&options, 0, sizeof options);
  options.directory = directory;
  options.name = name;
  options.payload_bytes = payload_bytes;
  options.when_full = when_full;
  options.block_timeout_us = block_timeout_us;
  return ring2_producer_open(&options, out);
}

/* 1 when a record of `bytes` fits now beside a GAP, whatever the padding; a guess when other
 * threads write at the same time. Lets the caller wait with a record that must arrive. */
int ring2_python_room(const ring2_producer *producer, uint64_t bytes) {
  const ring2_header *header = ring2_producer_header(producer);
  if (header == NULL) return 0;
  uint64_t slots = header->meta_slots;
  uint64_t capacity = header->payload_bytes;
  uint64_t records = __atomic_load_n(&header->meta_head, __ATOMIC_RELAXED) -
                     __atomic_load_n(&header->meta_tail, __ATOMIC_ACQUIRE);
  uint64_t used = __atomic_load_n(&header->payload_head, __ATOMIC_RELAXED) -
                  __atomic_load_n(&header->payload_tail, __ATOMIC_ACQUIRE);
  uint64_t gap = sizeof(ring2_gap) + RING2_PAYLOAD_ALIGN;
  /* Padding at the end of the ring may cost as much again as the record itself. */
  uint64_t need = gap + 2 * bytes + 2 * RING2_PAYLOAD_ALIGN;
  /* A record that is large for the ring is tried when the ring is empty. */
  if (need > capacity) return used == 0;
  return records + 2 <= slots && used + need <= capacity;
}

/* Writes a STEP. Each row is ROW_VALUES integers: request key, token start, token end, index,
 * row offset, kv offset, phase. */
int ring2_python_step(ring2_producer *producer, int64_t step, uint32_t layout, uint32_t flags,
                      uint32_t control_sequence, uint32_t columns, uint32_t row_count,
                      const int64_t *values) {
  static _Thread_local ring2_step_row rows[RING2_STEP_ROWS_MAX];
  ring2_step_header header;
  memset(&header, 0, sizeof header);
  header.step = step;
  header.row_count = row_count;
  header.columns = columns;
  header.layout = (uint8_t)layout;
  header.flags = (uint8_t)flags;
  header.control_sequence = control_sequence;
  if (row_count <= RING2_STEP_ROWS_MAX) {
    memset(rows, 0, row_count * sizeof rows[0]);
    for (uint32_t i = 0; i < row_count; i++, values += ROW_VALUES) {
      rows[i].request_key = (uint64_t)values[0];
      rows[i].token_start = (int32_t)values[1];
      rows[i].token_end = (int32_t)values[2];
      rows[i].index = (int32_t)values[3];
      rows[i].row_offset = (int32_t)values[4];
      rows[i].kv_offset = (int32_t)values[5];
      rows[i].phase = (uint8_t)values[6];
    }
  }
  const int written = ring2_write_step(producer, &header, rows);
  if (written == RING2_OK) ring2_cuda_step_written(producer, &header, rows);
  return written;
}

/* Losses that the producer counted, RING2_LOSS_REASONS_MAX of each. */
int ring2_python_losses(const ring2_producer *producer, uint64_t *records, uint64_t *bytes) {
  const ring2_header *header = ring2_producer_header(producer);
  if (header == NULL) return -RING2_E_ARGUMENT;
  for (uint32_t i = 0; i < RING2_LOSS_REASONS_MAX; i++) {
    records[i] = __atomic_load_n(&header->producer_losses[i].records, __ATOMIC_RELAXED);
    bytes[i] = __atomic_load_n(&header->producer_losses[i].bytes, __ATOMIC_RELAXED);
  }
  return RING2_OK;
}
