// What an exporter drains of whole sessions: models, late rows, what is wanted.

#include <map>

#include "ring_helpers.h"
#include "session.h"

namespace ring2::dmi {
namespace {

using ring2_test::Drained;

struct Reader {
  explicit Reader(const std::string &path) {
    EXPECT_EQ(ring2_consumer_open(path.c_str(), &consumer), RING2_OK) << ring2_last_error();
  }
  ~Reader() { ring2_consumer_close(consumer, 0); }

  std::string body(const ring2_slice &slice) const {
    const auto *const payload = static_cast<const char *>(ring2_consumer_payload(consumer));
    return std::string(payload + slice.payload_offset, slice.payload_bytes);
  }

  ring2_consumer *consumer = nullptr;
};

TestRow token(const std::string &request, int32_t at, int32_t layer = 0) {
  TestRow row;
  row.request = request;
  row.layer = layer;
  row.start = at;
  row.end = at + 1;
  row.shape = {1, 3};
  row.bytes = std::string(12, static_cast<char>('a' + at % 26));
  return row;
}

TEST(DmiRecords, ARowThatComesLongAfterItsStepIsStillAttributed) {
  Bridge bridge;
  std::vector<TestRow> rows;
  for (int32_t at = 0; at < 400; ++at) rows.push_back(token("r", at));
  Reader reader(bridge.path());
  bridge.play(hello() + insert(block_of(rows)));
  EXPECT_EQ(ring2_test::drain(reader.consumer).of(RING2_KIND_TENSOR).size(), 400u);
  bridge.play(hello() + insert(block_of({token("r", 3, 1)})));
  const Drained late = ring2_test::drain(reader.consumer);
  const auto tensors = late.of(RING2_KIND_TENSOR);
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].token_start, 3);
  EXPECT_EQ(tensors[0].flags & RING2_SLICE_UNATTRIBUTED, 0u);
  EXPECT_EQ(late.of(RING2_KIND_STEP).size(), 1u);
  EXPECT_EQ(bridge.counts.steps, 400u);
}

TEST(DmiRecords, EveryModelHasASegmentOfItsOwn) {
  Bridge bridge;
  TestRow other = token("r", 0);
  other.model = "another";
  bridge.play(hello() + insert(block_of({token("r", 0), other, token("r", 1)})));
  bridge.ledger().end_all();
  std::map<std::string, size_t> tensors;
  for (const char *const segment : {"", "-2"}) {
    Reader reader(bridge.path() + segment);
    const Drained all = ring2_test::drain(reader.consumer);
    ASSERT_FALSE(all.of(RING2_KIND_MODEL).empty());
    const std::string body = reader.body(all.of(RING2_KIND_MODEL)[0]);
    tensors[body.substr(0, body.find(','))] = all.of(RING2_KIND_TENSOR).size();
  }
  const std::map<std::string, size_t> expected = {{"{\"name\":\"m\"", 2},
                                                  {"{\"name\":\"another\"", 1}};
  EXPECT_EQ(tensors, expected);
}

TEST(DmiRecords, OfMoreModelsThanSegmentsTheRestIsCounted) {
  Bridge bridge(64 * 1024);
  std::vector<TestRow> rows(kModelsMax + 2);
  for (size_t i = 0; i < rows.size(); ++i) (rows[i].model = "m") += std::to_string(i);
  EXPECT_EQ(bridge.play(hello() + insert(block_of(rows))).back(), '\x05');
  EXPECT_EQ(bridge.counts.rows_written, kModelsMax);
  EXPECT_EQ(bridge.counts.unsupported, 2u);
}

TEST(DmiRecords, WhatNobodyWantsIsReadAndLeftOut) {
  Bridge bridge;
  Reader reader(bridge.path());
  ring2_control control = {};
  control.flags = RING2_CONTROL_PREFILL;
  control.request_share = RING2_CONTROL_ALL_REQUESTS;
  control.decode_every = 1;
  control.wanted[RING2_HOOK_RESID_PRE][0] = 0b10;  // layer 1 alone
  uint32_t sequence = 0;
  ASSERT_EQ(ring2_consumer_set_control(reader.consumer, &control, &sequence), RING2_OK);
  bridge.play(hello() + insert(block_of({token("r", 0), token("r", 0, 1), token("r", 0, 2)})));
  EXPECT_EQ(bridge.counts.rows_written, 1u);
  EXPECT_EQ(bridge.counts.not_wanted, 2u);
  const auto tensors = ring2_test::drain(reader.consumer).of(RING2_KIND_TENSOR);
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].layer, 1);
  // No request at all: not even their steps are written.
  control.request_share = 0;
  ASSERT_EQ(ring2_consumer_set_control(reader.consumer, &control, &sequence), RING2_OK);
  const std::string answer = bridge.play(hello() + insert(block_of({token("unwanted", 0, 1)})));
  EXPECT_EQ(answer.back(), '\x05');
  EXPECT_EQ(bridge.counts.not_wanted, 3u);
  EXPECT_TRUE(ring2_test::drain(reader.consumer).slices.empty());
}

TEST(DmiRecords, ShardsOfOneRowAreTwoTensorsAndTheModelSaysHowManyThereAre) {
  Bridge bridge;
  TestRow shard;
  shard.act = "blocks.attn.hook_k";
  shard.shape = {2, 2, 3};
  shard.bytes = std::string(48, 'k');
  TestRow other = shard;
  other.shard = 1;
  Reader reader(bridge.path());
  bridge.play(hello() + insert(block_of({shard, other})));
  bridge.ledger().end_all();
  const Drained all = ring2_test::drain(reader.consumer);
  const auto tensors = all.of(RING2_KIND_TENSOR);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].tp_rank, 0);
  EXPECT_EQ(tensors[1].tp_rank, 1);
  const std::string model = reader.body(all.of(RING2_KIND_MODEL).back());
  EXPECT_NE(model.find("\"kv_heads\":4,\"shards\":2"), std::string::npos) << model;
}

TEST(DmiRecords, OneKeyHeadOfEachShardIsNotTakenForAsManyHeads) {
  Bridge bridge;
  TestRow shard;
  shard.act = "blocks.attn.hook_k";
  shard.shape = {2, 1, 3};
  TestRow other = shard;
  other.shard = 1;
  Reader reader(bridge.path());
  bridge.play(hello() + insert(block_of({shard, other})));
  bridge.ledger().end_all();
  const Drained all = ring2_test::drain(reader.consumer);
  const std::string model = reader.body(all.of(RING2_KIND_MODEL).back());
  EXPECT_EQ(model.find("kv_heads"), std::string::npos) << model;
  EXPECT_NE(model.find("\"shards\":2"), std::string::npos) << model;
}

}  // namespace
}  // namespace ring2::dmi
