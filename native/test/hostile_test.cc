// A segment whose content is wrong, damaged or hostile: an error count, never a stray read.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "ring_helpers.h"

using namespace ring2_test;

namespace {

// The segment's file as another process would map it.
struct Mapping {
  uint8_t *base = nullptr;
  size_t bytes = 0;

  explicit Mapping(const std::string &path) {
    const int file = open(path.c_str(), O_RDWR);
    struct stat status = {};
    fstat(file, &status);
    bytes = static_cast<size_t>(status.st_size);
    base = static_cast<uint8_t *>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    close(file);
  }
  ~Mapping() { munmap(base, bytes); }
  Mapping(const Mapping &) = delete;
  Mapping &operator=(const Mapping &) = delete;

  ring2_header *header() const { return reinterpret_cast<ring2_header *>(base); }
  ring2_descriptor *slot(uint64_t index) const {
    return reinterpret_cast<ring2_descriptor *>(base + RING2_HEADER_BYTES) + index;
  }
};

int open_error(const std::string &path) {
  ring2_consumer *consumer = nullptr;
  const int result = ring2_consumer_open(path.c_str(), &consumer);
  if (result == RING2_OK) ring2_consumer_close(consumer, 0);
  return result;
}

}  // namespace

TEST(Hostile, SegmentOfAnotherVersionIsRefusedWithBothNumbers) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "version");
  Mapping mapping(folder.file("version"));
  mapping.header()->version = 99;
  EXPECT_EQ(open_error(folder.file("version")), -RING2_E_VERSION);
  EXPECT_NE(std::string(ring2_last_error()).find("version 99; expected 1"), std::string::npos);
  ring2_producer_close(producer);
}

TEST(Hostile, HeaderThatContradictsItselfIsNoSegment) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "header");
  Mapping mapping(folder.file("header"));
  const ring2_header good = *mapping.header();
  const std::string path = folder.file("header");
  mapping.header()->meta_slots = 1u << 19;
  EXPECT_EQ(open_error(path), -RING2_E_NOT_A_SEGMENT);
  *mapping.header() = good;
  mapping.header()->payload_bytes = uint64_t{1} << 39;
  EXPECT_EQ(open_error(path), -RING2_E_NOT_A_SEGMENT);
  *mapping.header() = good;
  mapping.header()->meta_tail = 1;
  EXPECT_EQ(open_error(path), -RING2_E_NOT_A_SEGMENT);
  *mapping.header() = good;
  mapping.header()->magic ^= 1;
  EXPECT_EQ(open_error(path), -RING2_E_NOT_A_SEGMENT);
  *mapping.header() = good;
  EXPECT_EQ(open_error(path), RING2_OK);
  ring2_producer_close(producer);
}

TEST(Hostile, FilesThatAreNoSegmentsAreRefused) {
  Folder folder;
  const std::string path = folder.file("text");
  FILE *file = fopen(path.c_str(), "w");
  fputs("not a segment", file);
  fclose(file);
  EXPECT_EQ(open_error(path), -RING2_E_NOT_A_SEGMENT);
  EXPECT_EQ(open_error(folder.path), -RING2_E_SYSTEM);
  EXPECT_EQ(open_error(folder.file("nowhere")), -RING2_E_SYSTEM);
}

TEST(Hostile, EachWrongFieldOfATensorIsSkippedAndCountedAndTheNextRecordSurvives) {
  const std::vector<std::pair<const char *, void (*)(ring2_descriptor *)>> damages = {
      {"hook", [](ring2_descriptor *d) { d->hook = 10; }},
      {"hook beyond", [](ring2_descriptor *d) { d->hook = 40000; }},
      {"dtype", [](ring2_descriptor *d) { d->dtype = 77; }},
      {"ndim 0", [](ring2_descriptor *d) { d->ndim = 0; }},
      {"ndim 200", [](ring2_descriptor *d) { d->ndim = 200; }},
      {"dims", [](ring2_descriptor *d) { d->dims[2] = 5; }},
      {"dims overflow", [](ring2_descriptor *d) { d->dims[0] = d->dims[1] = d->dims[2] = UINT32_MAX; }},
      {"layer", [](ring2_descriptor *d) { d->layer = -7; }},
      {"kind", [](ring2_descriptor *d) { d->kind = 200; }},
      {"bytes", [](ring2_descriptor *d) { d->payload_bytes = UINT64_MAX - 3; }},
      {"position", [](ring2_descriptor *d) { d->payload_position += 64; }},
      {"position far", [](ring2_descriptor *d) { d->payload_position = UINT64_MAX - 64; }},
      {"state", [](ring2_descriptor *d) { d->state = 0x1234567; }},
      {"batch index", [](ring2_descriptor *d) { d->dims[0] = 0; d->payload_bytes = 0; }},
  };
  for (const auto &[name, damage] : damages) {
    Folder folder;
    ring2_producer *producer = open_producer(folder, "damage");
    ASSERT_EQ(write_token(producer, 0, {1, 2, 3, 4}), RING2_OK);
    ASSERT_EQ(write_token(producer, 1, {5, 6, 7, 8}), RING2_OK);
    Mapping mapping(folder.file("damage"));
    damage(mapping.slot(1));
    ring2_consumer *consumer = open_consumer(folder, "damage");
    const Drained drained = drain(consumer);
    const auto tensors = drained.of(RING2_KIND_TENSOR);
    ASSERT_EQ(tensors.size(), 1u) << name;
    EXPECT_EQ(floats(consumer, tensors[0]), (std::vector<float>{5, 6, 7, 8})) << name;
    EXPECT_EQ(lost(consumer, RING2_LOSS_CORRUPT), 1u) << name;
    ring2_consumer_close(consumer, 0);
    ring2_producer_close(producer);
  }
}

TEST(Hostile, StepBodiesAreValidatedBeforeTheyAreUsed) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "steps");
  EXPECT_EQ(write_step(producer, 0, 1, {row(1, 0, 2)}), RING2_OK);            // beyond the axis
  EXPECT_EQ(write_step(producer, 1, 1, {row(0, 0, 1)}), RING2_OK);            // key 0
  EXPECT_EQ(write_step(producer, 2, 1, {row(1, 5, 3)}), RING2_OK);            // reversed
  EXPECT_EQ(write_step(producer, 3, 1, {row(1, 0, 1, -1)}), RING2_OK);        // negative index
  EXPECT_EQ(write_step(producer, 4, 8, {row(1, 0, 1, 0, INT32_MAX)}), RING2_OK);
  EXPECT_EQ(write_step(producer, 5, 1, {row(1, 0, 1)}, 9), RING2_OK);         // layout
  ring2_consumer *consumer = open_consumer(folder, "steps");
  EXPECT_TRUE(drain(consumer).slices.empty());
  EXPECT_EQ(lost(consumer, RING2_LOSS_CORRUPT), 6u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Hostile, TensorWithoutItsStepIsKeptWholeAndCountedAsUnattributed) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "orphan");
  const float values[] = {1, 2};
  const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 42, {1, 1, 2});
  ASSERT_EQ(ring2_write_tensor(producer, &facts, values), RING2_OK);
  ring2_consumer *consumer = open_consumer(folder, "orphan");
  const auto tensors = drain(consumer).of(RING2_KIND_TENSOR);
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].request_key, 0u);
  EXPECT_NE(tensors[0].flags & RING2_SLICE_UNATTRIBUTED, 0u);
  EXPECT_EQ(lost(consumer, RING2_LOSS_UNATTRIBUTED), 1u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Hostile, FileCutShortIsAnErrorAndNoBusError) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "short");
  ASSERT_EQ(write_token(producer, 0, {1}), RING2_OK);
  ring2_consumer *consumer = open_consumer(folder, "short");
  ASSERT_EQ(truncate(folder.file("short").c_str(), 8192), 0);
  std::vector<ring2_slice> slices(RING2_STEP_ROWS_MAX);
  ring2_drain_result result;
  EXPECT_EQ(ring2_drain(consumer, slices.data(), slices.size(), kDrainBytes, &result),
            -RING2_E_NOT_A_SEGMENT);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Hostile, SlicesThatDrainDidNotGiveAreRefused) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "forged");
  ASSERT_EQ(write_token(producer, 0, {1, 2}), RING2_OK);
  ring2_consumer *consumer = open_consumer(folder, "forged");
  ring2_slice forged = drain(consumer).of(RING2_KIND_TENSOR)[0];
  forged.dims[0] = 1u << 30;
  forged.elements = uint64_t{forged.dims[0]} * 2;
  std::vector<uint8_t> out(16);
  EXPECT_EQ(ring2_gather(consumer, &forged, out.data()), -RING2_E_ARGUMENT);
  forged.action = RING2_ACTION_STATS;
  EXPECT_EQ(ring2_measure(consumer, nullptr, nullptr, &forged, 1), -RING2_E_ARGUMENT);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

// Random bytes all over the meta ring and the payload, many times: with the sanitizers this is the
// proof that nothing is read before it was checked.
TEST(Hostile, RandomDamageNeverLeavesTheRing) {
  std::mt19937 random(20260511);
  for (int round = 0; round < 300; ++round) {
    Folder folder;
    Options options;
    options.payload_bytes = 65536;
    options.meta_slots = 64;
    ring2_producer *producer = open_producer(folder, "random", options);
    for (int64_t step = 0; step < 12; ++step) {
      write_token(producer, step, std::vector<float>(static_cast<size_t>(random() % 600)));
    }
    Mapping mapping(folder.file("random"));
    for (int damage = 0; damage < 40; ++damage) {
      const size_t meta = RING2_HEADER_BYTES + random() % (26 * sizeof(ring2_descriptor));
      const size_t payload = RING2_HEADER_BYTES + 64 * sizeof(ring2_descriptor) + random() % 4096;
      mapping.base[damage % 3 == 0 ? payload : meta] = static_cast<uint8_t>(random());
    }
    ring2_consumer *consumer = open_consumer(folder, "random");
    Drained drained = drain(consumer);
    std::vector<uint8_t> bytes(65536);
    for (ring2_slice &slice : drained.slices) {
      slice.action = RING2_ACTION_TENSOR;
      if (slice.kind == RING2_KIND_TENSOR && slice.payload_bytes <= bytes.size()) {
        ring2_gather(consumer, &slice, bytes.data());
      }
    }
    EXPECT_EQ(ring2_measure(consumer, nullptr, nullptr, drained.slices.data(), drained.slices.size()),
              RING2_OK)
        << ring2_last_error();
    EXPECT_EQ(ring2_release(consumer, drained.result.next_position), RING2_OK);
    ring2_consumer_close(consumer, 0);
    ring2_producer_close(producer);
  }
}
