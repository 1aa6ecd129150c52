/* Fixed cost of one small tensor in C: nanoseconds per ring2_write_tensor of 64 bytes.
 *
 *   cc -O2 -I native/include write_cost.c libring2.so -o write_cost && ./write_cost ROUNDS
 *
 * Each round fills part of the ring and is timed; draining it is not. Prints one number per line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ring2.h"

enum { RECORDS = 4096, SLICES = 4096, ELEMENTS = 16 };

static double now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void check(int result, const char *what) {
  if (result == RING2_OK) return;
  fprintf(stderr, "%s: %d %s\n", what, result, ring2_last_error());
  exit(1);
}

static void drain(ring2_consumer *consumer, ring2_slice *slices) {
  ring2_drain_result result;
  do {
    check(ring2_drain(consumer, slices, SLICES, UINT64_MAX, &result), "drain");
    check(ring2_release(consumer, result.next_position), "release");
  } while (result.slices > 0);
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 50;
  char name[RING2_NAME_BYTES], path[128];
  snprintf(name, sizeof name, "write-cost-%d", (int)getpid());
  snprintf(path, sizeof path, "/dev/shm/ring2.%s", name);
  ring2_producer_options options = {.name = name, .payload_bytes = 4 << 20, .meta_slots = 8192};
  ring2_producer *producer = NULL;
  ring2_consumer *consumer = NULL;
  check(ring2_producer_open(&options, &producer), "producer");
  check(ring2_consumer_open(path, &consumer), "consumer");
  ring2_slice *slices = calloc(SLICES, sizeof *slices);
  float data[ELEMENTS] = {1};
  ring2_tensor tensor = {.hook = 0, .dtype = RING2_DTYPE_FLOAT32, .ndim = 3};
  tensor.dims[0] = tensor.dims[1] = 1;
  tensor.dims[2] = ELEMENTS;
  tensor.strides[0] = tensor.strides[1] = ELEMENTS;
  tensor.strides[2] = 1;
  ring2_step_row row = {.request_key = 1, .token_end = 1};
  ring2_step_header header = {.row_count = 1, .columns = 1};
  /* The first rounds touch every page of the ring once and are not reported. */
  for (int round = -32; round < rounds; round++) {
    header.step = tensor.step = round + 32;
    check(ring2_write_step(producer, &header, &row), "step");
    double start = now_ns();
    for (int i = 0; i < RECORDS; i++) {
      check(ring2_write_tensor(producer, &tensor, data), "write");
    }
    double spent = now_ns() - start;
    if (round >= 0) printf("%.1f\n", spent / RECORDS);
    drain(consumer, slices);
  }
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
  free(slices);
  return 0;
}
