// Two processes, deaths and restarts: what is committed survives, what is not is counted.

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring_helpers.h"

using namespace ring2_test;

namespace {

bool exists(const std::string &path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0;
}

// Runs `body` in a child that ends without cleaning up, as a killed process does.
template <typename Body>
void in_killed_child(Body body) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    body();
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
}

}  // namespace

TEST(Lifecycle, RecordsOfAKilledProducerAreDrainedToTheEndAndTheSegmentRemoved) {
  Folder folder;
  in_killed_child([&] {
    ring2_producer *producer = open_producer(folder, "killed");
    for (int64_t step = 0; step < 10; ++step) write_token(producer, step, {1, 2, 3});
    const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 9, {1, 1, 8});
    ring2_claim claim;
    ring2_claim_tensor(producer, &facts, &claim);
    static_cast<float *>(claim.payload)[0] = 1;  // half written
  });
  ring2_consumer *consumer = open_consumer(folder, "killed");
  const Drained drained = drain(consumer);
  EXPECT_EQ(drained.of(RING2_KIND_TENSOR).size(), 10u);
  EXPECT_EQ(drained.result.finished, 1u);
  EXPECT_EQ(lost(consumer, RING2_LOSS_PRODUCER_DIED), 1u);
  ASSERT_EQ(ring2_release(consumer, drained.result.next_position), RING2_OK);
  EXPECT_EQ(ring2_consumer_close(consumer, 1), RING2_OK);
  EXPECT_FALSE(exists(folder.file("killed")));
}

TEST(Lifecycle, SegmentWithALiveProducerOrRecordsLeftIsNotRemoved) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "alive");
  ring2_consumer *consumer = open_consumer(folder, "alive");
  EXPECT_EQ(ring2_consumer_close(consumer, 1), -RING2_E_NOT_DRAINED);
  EXPECT_TRUE(exists(folder.file("alive")));
  ASSERT_EQ(write_token(producer, 0, {1}), RING2_OK);
  ring2_producer_close(producer);
  consumer = open_consumer(folder, "alive");
  EXPECT_EQ(ring2_consumer_close(consumer, 1), -RING2_E_NOT_DRAINED);
  EXPECT_TRUE(exists(folder.file("alive")));
}

TEST(Lifecycle, ClosedAndEmptySegmentRemovesItself) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "empty");
  EXPECT_TRUE(exists(folder.file("empty")));
  ring2_producer_close(producer);
  EXPECT_FALSE(exists(folder.file("empty")));
}

TEST(Lifecycle, RestartedConsumerResumesAtWhatWasNotReleased) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "resume");
  in_killed_child([&] {
    // The child only consumes: it maps the segment by name, as an exporter does.
    ring2_consumer *consumer = open_consumer(folder, "resume");
    (void)consumer;
  });
  for (int64_t step = 0; step < 6; ++step) ASSERT_EQ(write_token(producer, step, {float(step)}), RING2_OK);
  in_killed_child([&] {
    ring2_consumer *consumer = open_consumer(folder, "resume");
    const Drained drained = drain(consumer);
    // Releases the first three steps (two records each) and dies with the rest borrowed.
    if (drained.slices.size() == 12) ring2_release(consumer, 6);
  });
  ring2_consumer *consumer = open_consumer(folder, "resume");
  const Drained drained = drain(consumer);
  const auto tensors = drained.of(RING2_KIND_TENSOR);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].step, 3);
  EXPECT_EQ(floats(consumer, tensors[2]), (std::vector<float>{5}));
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Lifecycle, SeekSkipsWhatIsAlreadySafeAndAStepCanBeTaughtAgain) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "seek");
  ASSERT_EQ(write_step(producer, 0, 1, {row(3, 0, 1)}), RING2_OK);
  const float values[] = {1, 2};
  for (int layer = 0; layer < 2; ++layer) {
    const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, layer, 0, {1, 1, 2});
    ASSERT_EQ(ring2_write_tensor(producer, &facts, values), RING2_OK);
  }
  ring2_consumer *consumer = open_consumer(folder, "seek");
  ASSERT_EQ(ring2_consumer_seek(consumer, 2), RING2_OK);
  struct {
    ring2_step_header header;
    ring2_step_row row;
  } body = {};
  body.header.row_count = 1;
  body.header.columns = 1;
  body.row = row(3, 0, 1);
  ASSERT_EQ(ring2_consumer_add_step(consumer, &body, sizeof body), RING2_OK);
  const auto tensors = drain(consumer).of(RING2_KIND_TENSOR);
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].layer, 1);
  EXPECT_EQ(tensors[0].request_key, 3u);
  EXPECT_LT(ring2_consumer_seek(consumer, 99), 0);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Lifecycle, OnlyOneConsumerHoldsASegment) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "busy");
  ring2_consumer *first = open_consumer(folder, "busy");
  ring2_consumer *second = nullptr;
  EXPECT_EQ(ring2_consumer_open(folder.file("busy").c_str(), &second), -RING2_E_BUSY);
  ring2_segment_info info;
  EXPECT_EQ(ring2_segment_peek(folder.file("busy").c_str(), &info), RING2_OK);
  EXPECT_EQ(info.producer_alive, 1u);
  ring2_consumer_close(first, 0);
  EXPECT_EQ(ring2_consumer_open(folder.file("busy").c_str(), &second), RING2_OK);
  ring2_consumer_close(second, 0);
  ring2_producer_close(producer);
}

TEST(Lifecycle, NameOfALiveProducerIsTakenAndALeftoverIsMovedAside) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "name");
  ring2_producer_options facts = {folder.path.c_str(), "name", 65536, 64, 0, 0};
  ring2_producer *second = nullptr;
  EXPECT_EQ(ring2_producer_open(&facts, &second), -RING2_E_NAME_TAKEN);
  ASSERT_EQ(write_token(producer, 0, {1}), RING2_OK);
  const uint64_t boot = ring2_producer_header(producer)->boot;
  ring2_producer_close(producer);
  ASSERT_EQ(ring2_producer_open(&facts, &second), RING2_OK) << ring2_last_error();
  char aside[64];
  snprintf(aside, sizeof aside, "name~%016llx", static_cast<unsigned long long>(boot));
  ring2_consumer *consumer = open_consumer(folder, aside);
  EXPECT_EQ(drain(consumer).of(RING2_KIND_TENSOR).size(), 1u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(second);
}

TEST(Lifecycle, ProducerOfAnotherPidNamespaceIsJudgedByItsHeartbeat) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "container");
  // As a container's producer looks from outside: a pid that means nothing here.
  auto *header = const_cast<ring2_header *>(ring2_producer_header(producer));
  header->producer_pid_namespace ^= 1;
  header->producer_pid = 0x7ffffffe;
  ring2_segment_info info;
  ASSERT_EQ(ring2_producer_heartbeat(producer), RING2_OK);
  ASSERT_EQ(ring2_segment_peek(folder.file("container").c_str(), &info), RING2_OK);
  EXPECT_EQ(info.producer_alive, 1u);
  header->producer_heartbeat_ns -= uint64_t{60} * 1'000'000'000;
  ASSERT_EQ(ring2_segment_peek(folder.file("container").c_str(), &info), RING2_OK);
  EXPECT_EQ(info.producer_alive, 0u);
  ring2_producer_close(producer);
}

TEST(Lifecycle, SecondLeftoverOfANameIsRemovedAndItsRecordsAreCountedByTheNextProducer) {
  Folder folder;
  for (int life = 0; life < 2; ++life) {
    in_killed_child([&] {
      ring2_producer *producer = open_producer(folder, "again");
      write_token(producer, 0, {1});
    });
  }
  ring2_producer *producer = open_producer(folder, "again");
  // The first life had a STEP and a TENSOR, and was removed when the third began.
  EXPECT_EQ(ring2_producer_header(producer)->producer_losses[RING2_LOSS_LEFTOVER].records, 2u);
  ring2_producer_close(producer);
}

TEST(Lifecycle, LossesAreCountedOnceHoweverOftenARecordIsDrained) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "once");
  const float value = 1;
  const ring2_tensor orphan = tensor(RING2_HOOK_RESID_PRE, 0, 42, {1, 1, 1});
  ASSERT_EQ(ring2_write_tensor(producer, &orphan, &value), RING2_OK);
  for (int life = 0; life < 3; ++life) {
    ring2_consumer *consumer = open_consumer(folder, "once");
    drain(consumer);
    EXPECT_EQ(lost(consumer, RING2_LOSS_UNATTRIBUTED), 1u);
    ring2_consumer_close(consumer, 0);
  }
  ring2_producer_close(producer);
}

TEST(Lifecycle, ForkedChildCannotWriteToItsParentsSegment) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "fork");
  const pid_t child = fork();
  if (child == 0) {
    const int written = write_token(producer, 0, {1});
    const int wanted = ring2_wants(producer, RING2_HOOK_Q, 0);
    _exit(written == -RING2_E_CLOSED && wanted == 0 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(write_token(producer, 0, {1}), RING2_OK);
  ring2_producer_close(producer);
}

TEST(Lifecycle, ImpossibleOptionsAreRefusedWithWhatIsExpected) {
  Folder folder;
  ring2_producer *producer = nullptr;
  for (const char *name : {"", "a/b", "..", "x y", "éa"}) {
    ring2_producer_options facts = {folder.path.c_str(), name, 65536, 64, 0, 0};
    EXPECT_EQ(ring2_producer_open(&facts, &producer), -RING2_E_ARGUMENT) << name;
  }
  ring2_producer_options small = {folder.path.c_str(), "a", 100, 64, 0, 0};
  EXPECT_EQ(ring2_producer_open(&small, &producer), -RING2_E_ARGUMENT);
  ring2_producer_options odd = {folder.path.c_str(), "a", 65536, 65, 0, 0};
  EXPECT_EQ(ring2_producer_open(&odd, &producer), -RING2_E_ARGUMENT);
  ring2_producer_options huge = {folder.path.c_str(), "a", uint64_t{1} << 39, 64, 0, 0};
  EXPECT_EQ(ring2_producer_open(&huge, &producer), -RING2_E_SYSTEM);
  EXPECT_NE(std::string(ring2_last_error()).find("reserving"), std::string::npos);
}

// A producer writes flat out in one process while this one drains: every record arrives once, in
// order and whole, or is counted as lost.
TEST(Lifecycle, TwoProcessesAtFullSpeedLoseNothingUncounted) {
  Folder folder;
  constexpr int64_t kSteps = 20000;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    Options options;
    options.payload_bytes = 262144;
    options.meta_slots = 512;
    ring2_producer *producer = open_producer(folder, "speed", options);
    if (write(ready[1], "r", 1) != 1) _exit(2);
    for (int64_t step = 0; step < kSteps; ++step) {
      write_token(producer, step, std::vector<float>(static_cast<size_t>(1 + step % 700), float(step)));
    }
    ring2_producer_close(producer);
    _exit(0);
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  ring2_consumer *consumer = open_consumer(folder, "speed");
  int64_t seen = 0;
  int64_t last = -1;
  while (true) {
    const Drained drained = drain(consumer);
    for (const ring2_slice &slice : drained.of(RING2_KIND_TENSOR)) {
      ASSERT_GT(slice.step, last);
      last = slice.step;
      ASSERT_EQ(floats(consumer, slice),
                std::vector<float>(static_cast<size_t>(1 + slice.step % 700), float(slice.step)));
      ++seen;
    }
    ASSERT_EQ(ring2_release(consumer, drained.result.next_position), RING2_OK);
    if (drained.result.finished != 0) break;
  }
  uint64_t tensors_lost = 0;
  ring2_segment_info info;
  ring2_consumer_info(consumer, &info);
  // A step whose record was lost never reaches its tensor, so each missing tensor is one count of
  // one of these reasons (a lost STEP is counted beside its STEP_LOST tensor).
  for (int64_t reason : {RING2_LOSS_META_FULL, RING2_LOSS_PAYLOAD_FULL}) {
    tensors_lost += info.losses[reason].records;
  }
  EXPECT_EQ(seen + static_cast<int64_t>(tensors_lost), kSteps);
  EXPECT_EQ(info.losses[RING2_LOSS_CORRUPT].records, 0u);
  EXPECT_EQ(ring2_consumer_close(consumer, 1), RING2_OK);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}
