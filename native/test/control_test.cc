// Control words: whole under a concurrent writer, harmless when broken, and what a copy answers.

#include <atomic>
#include <thread>

#include "control.h"
#include "ring_helpers.h"
#include "segment.h"

using namespace ring2_test;

namespace {

ring2_control everything() {
  ring2_control control = {};
  std::memset(control.wanted, 0xff, sizeof control.wanted);
  control.flags = RING2_CONTROL_PREFILL;
  control.request_share = RING2_CONTROL_ALL_REQUESTS;
  control.decode_every = 1;
  return control;
}

ring2_control taken(ring2_producer *producer) {
  ring2_control control = {};
  EXPECT_EQ(ring2_take_control(producer, &control), RING2_OK);
  return control;
}

uint32_t set(ring2_consumer *consumer, const ring2_control &control) {
  uint32_t sequence = 0;
  EXPECT_EQ(ring2_consumer_set_control(consumer, &control, &sequence), RING2_OK);
  return sequence;
}

ring2_header *header_of(ring2_producer *producer) {
  return const_cast<ring2_header *>(ring2_producer_header(producer));
}

int wants_request(const ring2_control &control, const std::string &id, int sampled = 0) {
  return ring2_control_wants_request(&control, id.data(), id.size(), sampled);
}

}  // namespace

TEST(Control, EverythingIsWantedOfANewSegment) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  const ring2_control control = taken(producer);
  EXPECT_EQ(control.sequence, RING2_CONTROL_SEQUENCE_CREATED);
  EXPECT_EQ(ring2_control_wants_nothing(&control), 0);
  EXPECT_EQ(ring2_control_wants(&control, RING2_HOOK_RESID_PRE, 255), 1);
  EXPECT_EQ(ring2_control_wants(&control, RING2_HOOK_FINAL_LOGITS, -1), 1);
  EXPECT_EQ(ring2_control_wants(&control, RING2_HOOKS_MAX, 0), 0);
  EXPECT_EQ(ring2_control_wants(&control, RING2_HOOK_Q, RING2_LAYERS_MAX), 0);
  EXPECT_EQ(wants_request(control, "a request"), 1);
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_PREFILL, 0, 9), 1);
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_DECODE, 9, 10), 1);
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_DECODE, 9, 9), 0);
  ring2_producer_close(producer);
}

TEST(Control, AChangeGetsANewSequenceAndTheSameWordsKeepTheirs) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_consumer *consumer = open_consumer(folder, "a");
  ring2_control control = everything();
  EXPECT_EQ(set(consumer, control), RING2_CONTROL_SEQUENCE_CREATED);
  control.wanted[RING2_HOOK_Q][0] = 0b101;
  const uint32_t first = set(consumer, control);
  EXPECT_GT(first, RING2_CONTROL_SEQUENCE_CREATED);
  EXPECT_EQ(first % 2, 0u);
  EXPECT_EQ(set(consumer, control), first);
  const ring2_control seen = taken(producer);
  EXPECT_EQ(seen.sequence, first);
  EXPECT_EQ(ring2_control_wants(&seen, RING2_HOOK_Q, 2), 1);
  EXPECT_EQ(ring2_control_wants(&seen, RING2_HOOK_Q, 1), 0);
  EXPECT_EQ(ring2_wants(producer, RING2_HOOK_Q, 1), 0);
  // Back again is a change too: the number alone tells what was wanted.
  EXPECT_EQ(set(consumer, everything()), first + 2);

  // Another exporter finds the words of the one before, under their number.
  ASSERT_EQ(ring2_consumer_close(consumer, 0), RING2_OK);
  consumer = open_consumer(folder, "a");
  ring2_control left = {};
  ASSERT_EQ(ring2_consumer_control(consumer, &left), RING2_OK);
  EXPECT_EQ(left.sequence, first + 2);
  EXPECT_EQ(set(consumer, everything()), first + 2);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Control, WordsThatAnEarlierExporterChangedWithoutASequenceGetOne) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_consumer *consumer = open_consumer(folder, "a");
  header_of(producer)->wanted[RING2_HOOK_Q][0] = 0;
  EXPECT_EQ(ring2_wants(producer, RING2_HOOK_Q, 0), 0);
  ring2_control control = everything();
  control.wanted[RING2_HOOK_Q][0] = 0;
  EXPECT_GT(set(consumer, control), RING2_CONTROL_SEQUENCE_CREATED);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Control, NullModeIsNoHookOrNoRequestOrNoToken) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_consumer *consumer = open_consumer(folder, "a");
  ring2_control no_hook = everything();
  std::memset(no_hook.wanted, 0, sizeof no_hook.wanted);
  ring2_control no_request = everything();
  no_request.request_share = 0;
  ring2_control no_token = everything();
  no_token.flags = 0;
  no_token.decode_every = 0;
  for (const ring2_control &control : {no_hook, no_request, no_token}) {
    set(consumer, control);
    const ring2_control seen = taken(producer);
    EXPECT_EQ(ring2_control_wants_nothing(&seen), 1);
  }
  set(consumer, everything());
  const ring2_control seen = taken(producer);
  EXPECT_EQ(ring2_control_wants_nothing(&seen), 0);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Control, TheHashOfARequestNeverChanges) {
  EXPECT_EQ(ring2_request_hash("", 0), 0xefd01f60u);
  EXPECT_EQ(ring2_request_hash("a", 1), 0x82a2a958u);
  EXPECT_EQ(ring2_request_hash("chatcmpl-0123456789abcdef", 25), 0x76325f3cu);
}

TEST(Control, AShareOfRequestsIsThatShareAndGrowsByAdding) {
  ring2_control tenth = everything();
  tenth.request_share = RING2_CONTROL_ALL_REQUESTS / 10;
  ring2_control half = everything();
  half.request_share = RING2_CONTROL_ALL_REQUESTS / 2;
  int in_tenth = 0;
  int in_half = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string id = "request-" + std::to_string(i);
    in_tenth += wants_request(tenth, id);
    in_half += wants_request(half, id);
    EXPECT_LE(wants_request(tenth, id), wants_request(half, id)) << id;
  }
  EXPECT_NEAR(in_tenth, 2000, 150);
  EXPECT_NEAR(in_half, 10000, 300);
}

TEST(Control, OnlySampledTracesWhenThatIsAsked) {
  ring2_control control = everything();
  EXPECT_EQ(wants_request(control, "r", 0), 1);
  control.flags |= RING2_CONTROL_SAMPLED_ONLY;
  EXPECT_EQ(wants_request(control, "r", 0), 0);
  EXPECT_EQ(wants_request(control, "r", 1), 1);
  control.request_share = 0;
  EXPECT_EQ(wants_request(control, "r", 1), 0);
}

TEST(Control, EveryNthPositionOfTheGeneratedTokens) {
  ring2_control control = everything();
  control.decode_every = 4;
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_DECODE, 8, 9), 1);
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_DECODE, 9, 10), 0);
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_DECODE, 9, 12), 0);
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_DECODE, 9, 13), 1);
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_PREFILL, 9, 10), 1);
  control.flags = 0;
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_PREFILL, 0, 10), 0);
  control.decode_every = 0;
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_DECODE, 0, INT32_MAX), 0);
  control.decode_every = UINT32_MAX;
  EXPECT_EQ(ring2_control_wants_tokens(&control, RING2_PHASE_DECODE, INT32_MAX - 1, INT32_MAX), 0);
}

TEST(Control, ACopyIsNeverOfTwoPolicies) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_consumer *consumer = open_consumer(folder, "a");
  constexpr int kWrites = 20000;
  std::atomic<bool> done{false};
  // Every word of one write holds the same number, so that a mixture shows.
  std::thread writer([&] {
    for (uint32_t number = 1; number <= kWrites; ++number) {
      ring2_control control = {};
      for (auto &words : control.wanted) {
        for (uint64_t &word : words) word = number;
      }
      control.flags = number;
      control.request_share = number;
      control.decode_every = number;
      uint32_t sequence = 0;
      ring2_consumer_set_control(consumer, &control, &sequence);
    }
    done = true;
  });
  uint64_t mixed = 0;
  uint32_t last = 0;
  uint64_t backwards = 0;
  while (!done) {
    ring2_control seen = {};
    ring2_take_control(producer, &seen);
    if (seen.sequence < last) ++backwards;
    last = seen.sequence;
    if (seen.sequence == RING2_CONTROL_SEQUENCE_CREATED) continue;
    const uint64_t number = seen.decode_every;
    bool same = seen.flags == number && seen.request_share == number;
    same = same && seen.sequence == RING2_CONTROL_SEQUENCE_CREATED + 2 * number;
    for (const auto &words : seen.wanted) {
      for (const uint64_t word : words) same = same && word == number;
    }
    if (!same) ++mixed;
  }
  writer.join();
  EXPECT_EQ(mixed, 0u);
  EXPECT_EQ(backwards, 0u);
  const ring2_control final = taken(producer);
  EXPECT_EQ(final.decode_every, static_cast<uint32_t>(kWrites));
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Control, ASequenceThatStaysOddGivesTheLastGoodCopyAndTheNextExporterRepairsIt) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_consumer *consumer = open_consumer(folder, "a");
  ring2_control control = everything();
  control.decode_every = 7;
  const uint32_t good = set(consumer, control);
  EXPECT_EQ(taken(producer).sequence, good);

  header_of(producer)->control_sequence = good + 1;
  header_of(producer)->control_decode_every = 99;
  header_of(producer)->wanted[RING2_HOOK_Q][0] = 0;
  const ring2_control kept = taken(producer);
  EXPECT_EQ(kept.sequence, good);
  EXPECT_EQ(kept.decode_every, 7u);
  EXPECT_EQ(ring2_control_wants(&kept, RING2_HOOK_Q, 0), 1);

  control.decode_every = 3;
  EXPECT_EQ(set(consumer, control), good + 2);
  EXPECT_EQ(taken(producer).decode_every, 3u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Control, NumbersNobodyWritesAreReadAsTheNearestOnes) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_header *header = header_of(producer);
  header->control_request_share = UINT64_MAX;
  header->control_flags = UINT32_MAX;
  header->control_sequence = UINT32_MAX - 1;
  const ring2_control control = taken(producer);
  EXPECT_EQ(control.request_share, RING2_CONTROL_ALL_REQUESTS);
  ring2_consumer *consumer = open_consumer(folder, "a");
  EXPECT_EQ(set(consumer, everything()), RING2_CONTROL_SEQUENCE_CREATED + 2);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Control, ASegmentOfAnEarlierProducerTakesTheWordsToo) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_header *header = header_of(producer);
  header->control_sequence = 0;
  header->control_flags = 0;
  header->control_request_share = 0;
  header->control_decode_every = 0;
  ring2_consumer *consumer = open_consumer(folder, "a");
  ring2_control left = {};
  ASSERT_EQ(ring2_consumer_control(consumer, &left), RING2_OK);
  EXPECT_EQ(left.sequence, 0u);
  EXPECT_GT(set(consumer, everything()), RING2_CONTROL_SEQUENCE_CREATED);
  EXPECT_EQ(ring2_wants(producer, RING2_HOOK_Q, 0), 1);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Control, AnExtraStepMarksItsSlices) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_consumer *consumer = open_consumer(folder, "a");
  ring2_step_header header = {};
  header.step = 5;
  header.row_count = 1;
  header.columns = 2;
  header.flags = RING2_STEP_EXTRA;
  header.control_sequence = 8;
  const ring2_step_row rows[] = {row(1, 3, 5)};
  ASSERT_EQ(ring2_write_step(producer, &header, rows), RING2_OK);
  const ring2_tensor facts = tensor(RING2_HOOK_PATTERN, 0, 5, {1, 1, 2, 5});
  const std::vector<float> values(10, 0.2f);
  ASSERT_EQ(ring2_write_tensor(producer, &facts, values.data()), RING2_OK);
  ASSERT_EQ(write_token(producer, 6, {1.0f}), RING2_OK);
  const auto slices = drain(consumer).of(RING2_KIND_TENSOR);
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_NE(slices[0].flags & RING2_SLICE_EXTRA, 0u);
  EXPECT_EQ(slices[0].token_start, 3);
  EXPECT_EQ(slices[1].flags & RING2_SLICE_EXTRA, 0u);
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Runs, OnlyTheRunsOfTheFirstAxisAreCopied) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_consumer *consumer = open_consumer(folder, "a");
  std::vector<float> values(6 * 3);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  // Rows 1, 2 and 5 of six; then the same rows of the transposed matrix.
  const ring2_run runs[] = {{1, 2}, {5, 1}, {0, 0}};
  ASSERT_EQ(write_step(producer, 1, 3, {row(1, 0, 2), row(2, 0, 1, 1, 2)}, RING2_STEP_PACKED),
            RING2_OK);
  const ring2_tensor dense = tensor(RING2_HOOK_RESID_PRE, 0, 1, {6, 3});
  ASSERT_EQ(ring2_write_tensor_runs(producer, &dense, values.data(), runs, 3), RING2_OK);
  ring2_tensor strided = tensor(RING2_HOOK_RESID_PRE, 1, 1, {6, 3});
  strided.strides[0] = 1;
  strided.strides[1] = 6;
  ASSERT_EQ(ring2_write_tensor_runs(producer, &strided, values.data(), runs, 3), RING2_OK);
  const auto slices = drain(consumer).of(RING2_KIND_TENSOR);
  ASSERT_EQ(slices.size(), 4u);
  EXPECT_EQ(floats(consumer, slices[0]), (std::vector<float>{3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(slices[0].request_key, 1u);
  EXPECT_EQ(floats(consumer, slices[1]), (std::vector<float>{15, 16, 17}));
  EXPECT_EQ(slices[1].request_key, 2u);
  EXPECT_EQ(floats(consumer, slices[2]), (std::vector<float>{1, 7, 13, 2, 8, 14}));
  EXPECT_EQ(floats(consumer, slices[3]), (std::vector<float>{5, 11, 17}));
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Runs, BatchRowsKeepTheirOtherAxes) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  ring2_consumer *consumer = open_consumer(folder, "a");
  std::vector<float> values(3 * 2 * 2);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  ASSERT_EQ(write_step(producer, 1, 2, {row(7, 0, 2)}), RING2_OK);
  const ring2_run last = {2, 1};
  const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 1, {3, 2, 2});
  ASSERT_EQ(ring2_write_tensor_runs(producer, &facts, values.data(), &last, 1), RING2_OK);
  const auto slices = drain(consumer).of(RING2_KIND_TENSOR);
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_EQ(floats(consumer, slices[0]), (std::vector<float>{8, 9, 10, 11}));
  ring2_consumer_close(consumer, 0);
  ring2_producer_close(producer);
}

TEST(Runs, ARunOutsideTheAxisIsRefusedAndNothingIsWritten) {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "a");
  const std::vector<float> values(4);
  const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 1, {4, 1});
  const ring2_run beyond = {3, 2};
  EXPECT_EQ(ring2_write_tensor_runs(producer, &facts, values.data(), &beyond, 1),
            -RING2_E_ARGUMENT);
  const ring2_run overflow = {UINT32_MAX, UINT32_MAX};
  EXPECT_EQ(ring2_write_tensor_runs(producer, &facts, values.data(), &overflow, 1),
            -RING2_E_ARGUMENT);
  EXPECT_EQ(ring2_write_tensor_runs(producer, &facts, values.data(), nullptr, 1),
            -RING2_E_ARGUMENT);
  EXPECT_EQ(ring2_producer_header(producer)->committed_records, 0u);
  ring2_producer_close(producer);
}
