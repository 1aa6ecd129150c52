/* Fixed cost in C, in nanoseconds; one number per round.
 *
 *   cc -O2 -I native/include write_cost.c libring2.so -o write_cost
 *   ./write_cost ROUNDS [small|vector|control]
 *
 * small: ring2_write_tensor of 64 bytes. vector: asking whether a tensor of 2 KiB is wanted and writing
 * it, less a memcpy of 2 KiB to memory as cold. control: what a step costs that nobody wants, taking
 * the control words and asking. Each round fills part of the ring and is timed; draining it is not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ring2.h"

enum { RECORDS = 1024, SLICES = 4096, ELEMENTS_MAX = 512, RING_BYTES = 4 << 20 };

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

/* Nanoseconds per copy of `bytes` into as much memory as the records of a round take. */
static double copy_ns(const void *data, size_t bytes, char *target) {
  double start = now_ns();
  for (int i = 0; i < RECORDS; i++) {
    memcpy(target + (size_t)i * bytes % RING_BYTES, data, bytes);
    /* The copies must happen: the compiler may think that memory is read. */
    __asm__ volatile("" : : "r"(target) : "memory");
  }
  return (now_ns() - start) / RECORDS;
}

static double control_ns(ring2_producer *producer) {
  int nothing = 0;
  double start = now_ns();
  for (int i = 0; i < RECORDS; i++) {
    ring2_control control;
    check(ring2_take_control(producer, &control), "control");
    nothing += ring2_control_wants_nothing(&control);
  }
  double spent = now_ns() - start;
  if (nothing != RECORDS) exit(1);
  return spent / RECORDS;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 50;
  const char *what = argc > 2 ? argv[2] : "small";
  int only_control = strcmp(what, "control") == 0, vector = strcmp(what, "vector") == 0;
  int64_t elements = vector ? ELEMENTS_MAX : 16;
  char name[RING2_NAME_BYTES], path[128];
  snprintf(name, sizeof name, "write-cost-%d", (int)getpid());
  snprintf(path, sizeof path, "/dev/shm/ring2.%s", name);
  ring2_producer_options options = {.name = name, .payload_bytes = RING_BYTES, .meta_slots = 8192};
  ring2_producer *producer = NULL;
  ring2_consumer *consumer = NULL;
  check(ring2_producer_open(&options, &producer), "producer");
  check(ring2_consumer_open(path, &consumer), "consumer");
  ring2_slice *slices = calloc(SLICES, sizeof *slices);
  char *plain = malloc(RING_BYTES + sizeof(float) * ELEMENTS_MAX);
  memset(plain, 1, RING_BYTES);
  float data[ELEMENTS_MAX] = {1};
  ring2_tensor tensor = {.hook = 0, .dtype = RING2_DTYPE_FLOAT32, .ndim = 3};
  tensor.dims[0] = tensor.dims[1] = 1;
  tensor.dims[2] = elements;
  tensor.strides[0] = tensor.strides[1] = elements;
  tensor.strides[2] = 1;
  ring2_step_row row = {.request_key = 1, .token_end = 1};
  ring2_step_header header = {.row_count = 1, .columns = 1};
  ring2_control control;
  if (only_control) {
    uint32_t sequence;
    check(ring2_consumer_control(consumer, &control), "read control");
    control.request_share = 0;
    check(ring2_consumer_set_control(consumer, &control, &sequence), "set control");
  }
  /* The first rounds touch every page of the ring once and are not reported. */
  for (int round = -32; round < rounds; round++) {
    if (only_control) {
      double spent = control_ns(producer);
      if (round >= 0) printf("%.1f\n", spent);
      continue;
    }
    header.step = tensor.step = round + 32;
    check(ring2_take_control(producer, &control), "control");
    check(ring2_write_step(producer, &header, &row), "step");
    double copied = vector ? copy_ns(data, sizeof data, plain) : 0;
    double start = now_ns();
    for (int i = 0; i < RECORDS; i++) {
      if (ring2_control_wants(&control, tensor.hook, tensor.layer) != 1) exit(1);
      check(ring2_write_tensor(producer, &tensor, data), "write");
    }
    double spent = (now_ns() - start) / RECORDS;
    if (round >= 0) printf("%.1f\n", spent - copied);
    drain(consumer, slices);
  }
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
  free(slices);
  free(plain);
  return 0;
}
