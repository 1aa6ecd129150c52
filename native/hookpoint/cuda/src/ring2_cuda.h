/* Tensors of an NVIDIA GPU into a Ring² segment, without waiting for either.
 *
 * A capture is one kernel on the caller's stream that copies the tensor into a ring in GPU memory and
 * publishes an entry in pinned memory. A thread of this library takes the entries in order, claims room
 * in the segment and copies each payload there on a stream of its own. The segment's payload ring is
 * registered as pinned memory, so this is the only copy off the GPU.
 *
 * No call waits for the GPU or allocates, but ring2_cuda_open and ring2_cuda_close. What finds no room
 * on the GPU is counted in the segment under the reasons of the segment's own rings (meta_full,
 * payload_full, oversized).
 */
#ifndef RING2_CUDA_H
#define RING2_CUDA_H

#include "ring2.h"

#ifdef __cplusplus
extern "C" {
#endif

/* GPU memory of one ring when 0 is asked for, and the least. */
#define RING2_CUDA_RING_BYTES_DEFAULT (UINT64_C(256) << 20)
#define RING2_CUDA_RING_BYTES_MIN (UINT64_C(64) << 10)

typedef struct ring2_cuda ring2_cuda;

/* Opens the way from one GPU into the producer's segment: GPU memory, pinned memory, the thread. Not
 * within a forward pass. Returns NULL with the reason in ring2_cuda_error() (of this thread). */
RING2_API ring2_cuda *ring2_cuda_open(ring2_producer *producer, int device, uint64_t ring_bytes);
/* Waits until everything that was captured has reached the segment (at most 10 s), writes what was held
 * back, and frees. No other call may run. Graphs that hold captures may be replayed on: they capture
 * nothing any more. */
RING2_API void ring2_cuda_close(ring2_cuda *cuda);
RING2_API const char *ring2_cuda_error(void);

/* Copies a tensor (strides in elements) behind what `stream` does now. While the stream is being
 * captured into a CUDA graph, the copy becomes part of the graph: at each replay it belongs to the
 * step that is open then and is left out when that step does not want it. Otherwise it belongs to
 * `step`, and -1 means to leave it out. 0, or -1 when it could not be launched (the caller counts it). */
RING2_API int ring2_cuda_capture(ring2_cuda *cuda, void *stream, const ring2_tensor *tensor,
                                 const void *data, int64_t step);
/* As before, but only the first *rows (int32 in GPU memory, read when the copy runs) indices of axis 0
 * hold anything: the padding of a CUDA graph's batch is left out. */
RING2_API int ring2_cuda_capture_rows(ring2_cuda *cuda, void *stream, const ring2_tensor *tensor,
                            const void *data, int64_t step, const int32_t *rows);
/* As ring2_cuda_capture, but only the runs of axis 0, whose length has to be `length`, as of
 * ring2_write_tensor_runs. In a graph they are those of the step that is open at the replay. */
RING2_API int ring2_cuda_capture_runs(ring2_cuda *cuda, void *stream, const ring2_tensor *tensor,
                                      const void *data, int64_t step, const ring2_run *runs,
                                      uint32_t run_count, int64_t length);

/* Around a forward pass that may replay graphs, in its stream: the step they belong to, what is wanted
 * of it (RING2_HOOKS_MAX times RING2_LAYERS_MAX / 64 words of bits; NULL: nothing), and which runs of axis
 * 0 it holds (none: all of it). Left out while the stream is being captured. Counted as lost
 * (unsupported) are: replays while steps of two streams are open, since nobody could tell them apart; a
 * second replay of a graph within one step; tensors whose axis 0 is not `length` long, where there are
 * runs. Every begin that returned 1 needs an end on the same stream. */
RING2_API int ring2_cuda_begin_step(ring2_cuda *cuda, void *stream, int64_t step, const uint64_t *wanted,
                                    const ring2_run *runs, uint32_t run_count, int64_t length);
RING2_API void ring2_cuda_end_step(ring2_cuda *cuda, void *stream);

/* After each STEP that was written: the exporter remembers few, so the STEP of a tensor that comes late
 * is announced again before it. For all GPUs of the producer; nothing happens when it has none. */
RING2_API void ring2_cuda_step_written(ring2_producer *producer, const ring2_step_header *header,
                                       const ring2_step_row *rows);

/* Writes a JSON record (REQUEST_END) when all that was captured before, in a stream of each of `count`
 * GPUs of one producer, is in the segment. 1: it will be written; 0: the caller writes it. */
RING2_API int ring2_cuda_write_behind(ring2_cuda *const *ways, void *const *streams, uint32_t count,
                                      uint32_t kind, const char *json, uint64_t bytes);

/* 1 while the stream is being captured into a graph. */
RING2_API int ring2_cuda_capturing(const ring2_cuda *cuda, void *stream);

typedef struct ring2_cuda_counts {
  uint64_t copied_records, copied_bytes;   /* that reached the segment */
  uint64_t dropped_records, dropped_bytes; /* that found no room on the GPU, or no step */
  uint64_t graph_nodes;                    /* captures that became part of a graph */
  uint32_t pinned;                         /* 1: the segment is registered as pinned memory */
  uint32_t broken;                         /* 1: the GPU reported an error; nothing is captured any more */
} ring2_cuda_counts;

RING2_API void ring2_cuda_count(const ring2_cuda *cuda, ring2_cuda_counts *out);

#ifdef __cplusplus
}
#endif
#endif
