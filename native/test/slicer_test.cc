// Which part of a tensor belongs to which request: padding, growing keys, rows of logits, packing.

#include "ring_helpers.h"

using namespace ring2_test;

namespace {

// Elements that tell where they lie: the value is the index in the whole tensor.
std::vector<float> counting(const std::vector<int64_t> &dims) {
  int64_t elements = 1;
  for (const int64_t dim : dims) elements *= dim;
  std::vector<float> values(static_cast<size_t>(elements));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return values;
}

struct Cut {
  Folder folder;
  ring2_producer *producer = open_producer(folder, "cut");
  ring2_consumer *consumer = open_consumer(folder, "cut");

  ~Cut() {
    ring2_consumer_close(consumer, 0);
    ring2_producer_close(producer);
  }

  std::vector<ring2_slice> of(uint32_t hook, const std::vector<int64_t> &dims, uint32_t columns,
                              const std::vector<ring2_step_row> &rows,
                              uint8_t layout = RING2_STEP_BATCHED) {
    EXPECT_EQ(write_step(producer, 0, columns, rows, layout), RING2_OK);
    const ring2_tensor facts = tensor(hook, 0, 0, dims);
    EXPECT_EQ(ring2_write_tensor(producer, &facts, counting(dims).data()), RING2_OK);
    return drain(consumer).of(RING2_KIND_TENSOR);
  }
};

}  // namespace

TEST(Slicer, TokenRowsOfALeftPaddedBatchStartAfterThePadding) {
  Cut cut;
  const auto slices = cut.of(RING2_HOOK_RESID_PRE, {2, 3, 2}, 3, {row(1, 0, 3, 0), row(2, 0, 2, 1, 1, 1)});
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(floats(cut.consumer, slices[0]), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(floats(cut.consumer, slices[1]), (std::vector<float>{8, 9, 10, 11}));
}

TEST(Slicer, AttentionKeepsARequestsOwnKeysAndQueriesOfEveryHead) {
  Cut cut;
  // [batch 2, heads 2, queries 3, keys 4]: the second request is padded by one and sees two keys.
  const auto slices =
      cut.of(RING2_HOOK_PATTERN, {2, 2, 3, 4}, 3, {row(1, 1, 4, 0), row(2, 0, 2, 1, 1, 1)});
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(slices[0].dims[2], 4u);
  const ring2_slice &padded = slices[1];
  EXPECT_EQ((std::vector<uint32_t>{padded.dims[0], padded.dims[1], padded.dims[2]}),
            (std::vector<uint32_t>{2, 2, 2}));
  // Element (batch, head, query, key) has the value 24·batch + 12·head + 4·query + key.
  EXPECT_EQ(floats(cut.consumer, padded),
            (std::vector<float>{29, 30, 33, 34, 41, 42, 45, 46}));
}

TEST(Slicer, LogitsOfFewerRowsThanTokensAreTheLastOnes) {
  Cut cut;
  // Three columns, the last two have logits; the first request ends before the last column.
  const auto slices =
      cut.of(RING2_HOOK_FINAL_LOGITS, {2, 2, 2}, 3, {row(1, 0, 2, 0), row(2, 4, 7, 1)});
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(slices[0].token_start, 1);
  EXPECT_EQ(slices[0].token_end, 2);
  EXPECT_EQ(floats(cut.consumer, slices[0]), (std::vector<float>{0, 1}));
  EXPECT_EQ(slices[1].token_start, 5);
  EXPECT_EQ(slices[1].token_end, 7);
  EXPECT_EQ(floats(cut.consumer, slices[1]), (std::vector<float>{4, 5, 6, 7}));
}

TEST(Slicer, PackedRowsAreCutByTheirOffsetsAndLogitsByTheirOrder) {
  Cut cut;
  const std::vector<ring2_step_row> rows = {row(1, 0, 2, 0, 0), row(2, 7, 8, 1, 2)};
  const auto tokens = cut.of(RING2_HOOK_RESID_PRE, {3, 2}, 3, rows, RING2_STEP_PACKED);
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(floats(cut.consumer, tokens[1]), (std::vector<float>{4, 5}));
  const auto logits = cut.of(RING2_HOOK_FINAL_LOGITS, {2, 2}, 3, rows, RING2_STEP_PACKED);
  ASSERT_EQ(logits.size(), 2u);
  EXPECT_EQ(floats(cut.consumer, logits[1]), (std::vector<float>{2, 3}));
  EXPECT_EQ(logits[1].token_start, 7);
}

TEST(Slicer, ATensorOfAStepThatIsAnnouncedAgainIsAttributedHoweverLateItComes) {
  Cut cut;
  const auto announce = [&](int64_t step, uint8_t flags) {
    ring2_step_header header = {};
    header.step = step;
    header.row_count = 1;
    header.columns = 1;
    header.flags = flags;
    const ring2_step_row one = row(1, static_cast<int32_t>(step), static_cast<int32_t>(step) + 1);
    EXPECT_EQ(ring2_write_step(cut.producer, &header, &one), RING2_OK);
  };
  const ring2_tensor facts = tensor(RING2_HOOK_RESID_PRE, 0, 7, {1, 1, 2});
  const float values[2] = {1, 2};
  // Far more steps than anybody remembers; step 7 is announced again every hundred.
  for (int64_t step = 0; step < 1000; ++step) {
    announce(step, 0);
    if (step % 100 == 99) announce(7, RING2_STEP_AGAIN);
    if (step % 50 == 0) {
      const uint64_t position = drain(cut.consumer).result.next_position;
      ASSERT_EQ(ring2_release(cut.consumer, position), RING2_OK);
    }
  }
  EXPECT_EQ(ring2_write_tensor(cut.producer, &facts, values), RING2_OK);
  const auto slices = drain(cut.consumer).of(RING2_KIND_TENSOR);
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_EQ(slices[0].token_start, 7);
  EXPECT_EQ(slices[0].flags & RING2_SLICE_UNATTRIBUTED, 0u);
  EXPECT_EQ(lost(cut.consumer, RING2_LOSS_UNATTRIBUTED), 0u);
}
