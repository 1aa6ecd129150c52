// The ring seen from both ends in one process: order, wrap, full, abort, attribution.

#include <thread>

#include "ring_helpers.h"

using namespace ring2_test;

TEST(Ring, GivesCommittedRecordsInTheOrderOfTheirClaims) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "order");
  ASSERT_EQ(ring2_write_json(producer, RING2_KIND_MODEL, "{}", 2), RING2_OK);
  ASSERT_EQ(write_token(producer, 0, {1, 2, 3}), RING2_OK);
  ASSERT_EQ(ring2_write_json(producer, RING2_KIND_REQUEST_END, "{}", 2), RING2_OK);
  ring2_consumer *consumer = open_consumer(folder, "order");
  const Drained drained = drain(consumer);
  ASSERT_EQ(drained.slices.size(), 4u);
  const uint32_t kinds[] = {RING2_KIND_MODEL, RING2_KIND_STEP, RING2_KIND_TENSOR,
                            RING2_KIND_REQUEST_END};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(drained.slices[i].kind, kinds[i]);
    EXPECT_EQ(drained.slices[i].position, i);
  }
  const ring2_slice &slice = drained.slices[2];
  EXPECT_EQ(slice.request_key, 1u);
  EXPECT_EQ(slice.token_start, 0);
  EXPECT_EQ(slice.token_end, 1);
  EXPECT_EQ(floats(consumer, slice), (std::vector<float>{1, 2, 3}));
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, KeepsEveryByteWhenThePayloadWrapsManyTimes) {
  Folder folder;
  Options options;
  options.payload_bytes = 65536;
  options.meta_slots = 64;
  ring2_producer *producer = open_producer(folder, "wrap", options);
  ring2_consumer *consumer = open_consumer(folder, "wrap");
  for (int64_t step = 0; step < 500; ++step) {
    // Odd sizes up to half the ring, so that records end everywhere relative to its end.
    std::vector<float> values(static_cast<size_t>(1 + step * 37 % 8000), static_cast<float>(step));
    ASSERT_EQ(write_token(producer, step, values), RING2_OK) << step;
    const Drained drained = drain(consumer);
    const auto tensors = drained.of(RING2_KIND_TENSOR);
    ASSERT_EQ(tensors.size(), 1u);
    ASSERT_EQ(floats(consumer, tensors[0]), values) << step;
    ASSERT_EQ(ring2_release(consumer, drained.result.next_position), RING2_OK);
  }
  EXPECT_EQ(lost(consumer, RING2_LOSS_CORRUPT), 0u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, TakesARecordThatEndsWithTheRing) {
  Folder folder;
  Options options;
  options.payload_bytes = 65536;
  ring2_producer *producer = open_producer(folder, "exact", options);
  ring2_consumer *consumer = open_consumer(folder, "exact");
  // A STEP of one row takes 64 bytes; the tensor takes all the rest.
  const std::vector<float> rest((65536 - 64) / 4, 7);
  ASSERT_EQ(write_token(producer, 0, rest), RING2_OK);
  const Drained drained = drain(consumer);
  ASSERT_EQ(drained.of(RING2_KIND_TENSOR).size(), 1u);
  EXPECT_EQ(floats(consumer, drained.of(RING2_KIND_TENSOR)[0]), rest);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, SaysFullWhenDescriptorsRunOutAndAnnouncesTheGap) {
  Folder folder;
  Options options;
  options.meta_slots = 64;
  ring2_producer *producer = open_producer(folder, "meta", options);
  int refused = 0;
  for (int i = 0; i < 70; ++i) {
    if (ring2_write_json(producer, RING2_KIND_REQUEST, "{}", 2) == RING2_FULL) ++refused;
  }
  EXPECT_EQ(refused, 6);
  ring2_consumer *consumer = open_consumer(folder, "meta");
  EXPECT_EQ(lost(consumer, RING2_LOSS_META_FULL), 6u);
  Drained drained = drain(consumer);
  EXPECT_EQ(drained.slices.size(), 64u);
  ASSERT_EQ(ring2_release(consumer, drained.result.next_position), RING2_OK);
  ASSERT_EQ(ring2_write_json(producer, RING2_KIND_REQUEST, "{}", 2), RING2_OK);
  drained = drain(consumer);
  ASSERT_EQ(drained.slices.size(), 2u);
  ASSERT_EQ(drained.slices[0].kind, static_cast<uint32_t>(RING2_KIND_GAP));
  ring2_gap gap;
  std::memcpy(&gap,
              static_cast<uint8_t *>(ring2_consumer_payload(consumer)) +
                  drained.slices[0].payload_offset,
              sizeof gap);
  EXPECT_EQ(gap.losses[RING2_LOSS_META_FULL].records, 6u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, SaysFullWhenBytesRunOutAndRefusesWhatCanNeverFit) {
  Folder folder;
  Options options;
  options.payload_bytes = 65536;
  ring2_producer *producer = open_producer(folder, "bytes", options);
  std::vector<float> half(8192 + 100);
  EXPECT_EQ(write_token(producer, 0, half), RING2_OK);
  EXPECT_EQ(write_token(producer, 1, half), RING2_FULL);
  std::vector<float> huge(65536);
  EXPECT_EQ(write_token(producer, 2, huge), RING2_FULL);
  ring2_consumer *consumer = open_consumer(folder, "bytes");
  EXPECT_EQ(lost(consumer, RING2_LOSS_PAYLOAD_FULL), 1u);
  EXPECT_EQ(lost(consumer, RING2_LOSS_OVERSIZED), 1u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, RefusesTheTensorsOfAStepWhoseRecordWasLost) {
  Folder folder;
  Options options;
  options.payload_bytes = 65536;
  options.meta_slots = 64;
  ring2_producer *producer = open_producer(folder, "step", options);
  while (ring2_write_json(producer, RING2_KIND_REQUEST, "{}", 2) == RING2_OK) {
  }
  EXPECT_EQ(write_step(producer, 7, 1, {row(1, 0, 1)}), RING2_FULL);
  ring2_consumer *consumer = open_consumer(folder, "step");
  const Drained drained = drain(consumer);
  ASSERT_EQ(ring2_release(consumer, drained.result.next_position), RING2_OK);
  const float value = 1;
  const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 7, {1, 1, 1});
  EXPECT_EQ(ring2_write_tensor(producer, &facts, &value), RING2_FULL);
  EXPECT_EQ(lost(consumer, RING2_LOSS_STEP_LOST), 1u);
  EXPECT_EQ(write_token(producer, 8, {1}), RING2_OK);
  EXPECT_EQ(drain(consumer).of(RING2_KIND_TENSOR).size(), 1u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, SkipsAbortedClaimsAndCountsThem) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "abort");
  ring2_consumer *consumer = open_consumer(folder, "abort");
  ASSERT_EQ(write_step(producer, 0, 1, {row(1, 0, 1)}), RING2_OK);
  const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 0, {1, 1, 100});
  ring2_claim claim;
  ASSERT_EQ(ring2_claim_tensor(producer, &facts, &claim), RING2_OK);
  ASSERT_EQ(ring2_abort(producer, &claim), RING2_OK);
  EXPECT_LT(ring2_commit(producer, &claim), 0);
  ASSERT_EQ(write_token(producer, 1, {4}), RING2_OK);
  EXPECT_EQ(drain(consumer).of(RING2_KIND_TENSOR).size(), 1u);
  EXPECT_EQ(lost(consumer, RING2_LOSS_ABORTED), 1u);
  EXPECT_EQ(lost(consumer, RING2_LOSS_CORRUPT), 0u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, WaitsForAClaimThatALiveProducerHasNotCommitted) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "wait");
  ring2_consumer *consumer = open_consumer(folder, "wait");
  ASSERT_EQ(write_step(producer, 0, 1, {row(1, 0, 1)}), RING2_OK);
  const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 0, {1, 1, 1});
  ring2_claim claim;
  ASSERT_EQ(ring2_claim_tensor(producer, &facts, &claim), RING2_OK);
  ASSERT_EQ(write_token(producer, 1, {5}), RING2_OK);
  Drained drained = drain(consumer);
  EXPECT_EQ(drained.result.waiting, 1u);
  EXPECT_TRUE(drained.of(RING2_KIND_TENSOR).empty());
  *static_cast<float *>(claim.payload) = 9;
  ASSERT_EQ(ring2_commit(producer, &claim), RING2_OK);
  drained = drain(consumer);
  ASSERT_EQ(drained.of(RING2_KIND_TENSOR).size(), 2u);
  EXPECT_EQ(floats(consumer, drained.of(RING2_KIND_TENSOR)[0])[0], 9);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, BlocksUpToItsDeadlineWhenAskedTo) {
  Folder folder;
  Options options;
  options.payload_bytes = 65536;
  options.when_full = RING2_WHEN_FULL_BLOCK;
  options.block_timeout_us = 5'000'000;
  ring2_producer *producer = open_producer(folder, "block", options);
  ring2_consumer *consumer = open_consumer(folder, "block");
  const std::vector<float> large(9000);
  ASSERT_EQ(write_token(producer, 0, large), RING2_OK);
  std::thread drainer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const Drained drained = drain(consumer);
    ring2_release(consumer, drained.result.next_position);
  });
  EXPECT_EQ(write_token(producer, 1, large), RING2_OK);
  drainer.join();
  EXPECT_EQ(lost(consumer, RING2_LOSS_PAYLOAD_FULL), 0u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, GathersStridedTensorsRowMajor) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "stride");
  ring2_consumer *consumer = open_consumer(folder, "stride");
  std::vector<float> memory(2 * 3 * 4);
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
  ASSERT_EQ(write_step(producer, 0, 4, {row(1, 0, 4)}), RING2_OK);
  // [1, 4, 3] seen through a transposed [2, 3, 4] buffer.
  ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 0, {1, 4, 3});
  facts.strides[0] = 12;
  facts.strides[1] = 1;
  facts.strides[2] = 4;
  ASSERT_EQ(ring2_write_tensor(producer, &facts, memory.data()), RING2_OK);
  const Drained drained = drain(consumer);
  EXPECT_EQ(floats(consumer, drained.of(RING2_KIND_TENSOR)[0]),
            (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, AcceptsRecordsFromManyThreadsAndLosesNone) {
  Folder folder;
  Options options;
  options.meta_slots = 1024;
  ring2_producer *producer = open_producer(folder, "threads", options);
  ring2_consumer *consumer = open_consumer(folder, "threads");
  constexpr int kThreads = 4;
  constexpr int kRecords = 2000;
  ASSERT_EQ(write_step(producer, 0, 1, {row(1, 0, 1)}), RING2_OK);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([producer, thread] {
      for (int record = 0; record < kRecords; ++record) {
        const std::vector<float> values(16, static_cast<float>(record));
        const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, thread, 0, {1, 1, 16});
        while (ring2_write_tensor(producer, &facts, values.data()) == RING2_FULL) {
          std::this_thread::yield();
        }
      }
    });
  }
  std::vector<int> next(kThreads, 0);
  int seen = 0;
  while (seen < kThreads * kRecords) {
    const Drained drained = drain(consumer);
    for (const ring2_slice &slice : drained.of(RING2_KIND_TENSOR)) {
      const std::vector<float> values = floats(consumer, slice);
      ASSERT_EQ(values, std::vector<float>(16, static_cast<float>(next[slice.layer]++)));
      ++seen;
    }
    ASSERT_EQ(ring2_release(consumer, drained.result.next_position), RING2_OK);
  }
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(lost(consumer, RING2_LOSS_CORRUPT), 0u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Ring, TellsTheProducerWhatIsWanted) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "want");
  ring2_consumer *consumer = open_consumer(folder, "want");
  EXPECT_EQ(ring2_wants(producer, RING2_HOOK_Q, 200), 1);
  ASSERT_EQ(ring2_consumer_want(consumer, RING2_HOOK_Q, -2, 0), RING2_OK);
  EXPECT_EQ(ring2_wants(producer, RING2_HOOK_Q, 200), 0);
  EXPECT_EQ(ring2_wants(producer, RING2_HOOK_Q, 3), 0);
  ASSERT_EQ(ring2_consumer_want(consumer, RING2_HOOK_Q, 3, 1), RING2_OK);
  EXPECT_EQ(ring2_wants(producer, RING2_HOOK_Q, 3), 1);
  EXPECT_EQ(ring2_wants(producer, RING2_HOOK_K, 3), 1);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}
