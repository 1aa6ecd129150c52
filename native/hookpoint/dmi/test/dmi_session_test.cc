// Whole sessions: rows that arrive, rows that cannot be used, clients that mean harm.

#include <atomic>
#include <random>

#include "session.h"

namespace ring2::dmi {
namespace {

constexpr char kEnd = '\x05';

TEST(DmiSession, RowsOfAStepAreWrittenOnce) {
  Bridge bridge;
  TestRow other;
  other.layer = 1;
  const std::string answer = bridge.play(hello() + insert(block_of({{}, other, {}})));
  EXPECT_EQ(answer.back(), kEnd);
  EXPECT_EQ(bridge.counts.rows_written, 2u);
  EXPECT_EQ(bridge.counts.duplicates, 1u);
  EXPECT_EQ(bridge.counts.steps, 1u);
  bridge.ledger().end_all();
  ring2_segment_info info;
  ASSERT_EQ(ring2_segment_peek(bridge.path().c_str(), &info), RING2_OK);
  // MODEL, REQUEST, STEP, two tensors, MODEL again, REQUEST_END.
  EXPECT_EQ(info.committed_records, 7u);
}

TEST(DmiSession, CompressedRowsAreTheSame) {
  Bridge bridge;
  const std::string answer = bridge.play(hello() + insert(block_of({{}}), true));
  EXPECT_EQ(answer.back(), kEnd);
  EXPECT_EQ(bridge.counts.rows_written, 1u);
}

TEST(DmiSession, ColumnsThatAreNotOursAreSkipped) {
  Bridge bridge;
  const std::string more = text("at") + text("DateTime") + std::string(4, '\0');
  EXPECT_EQ(bridge.play(hello() + insert(block_of({{}}, more, 1))).back(), kEnd);
  EXPECT_EQ(bridge.counts.rows_written, 1u);
}

TEST(DmiSession, RowsThatCannotBeUsedAreCountedAndTheRestGoesOn) {
  Bridge bridge;
  std::vector<TestRow> rows(9);
  rows[0].act = "blocks.hook_of_nobody";
  rows[1].dtype = "torch.cfloat";
  rows[2].bytes = "short";
  rows[3].end = 7;
  rows[4].layer = 70000;
  rows[5].shape = {1 << 30, 1 << 30, 1 << 30, 1 << 30};
  rows[6].request = std::string(kIdBytesMax + 1, 'r');
  rows[7].shape = std::vector<int64_t>(40, 1);
  EXPECT_EQ(bridge.play(hello() + insert(block_of(rows)) + insert(block_of({{}}))).back(), kEnd);
  EXPECT_EQ(bridge.counts.unsupported, 8u);
  EXPECT_EQ(bridge.counts.rows_written, 1u);
  EXPECT_EQ(bridge.counts.duplicates, 1u);
  ring2_segment_info info;
  ASSERT_EQ(ring2_segment_peek(bridge.path().c_str(), &info), RING2_OK);
  EXPECT_EQ(info.losses[RING2_LOSS_UNSUPPORTED].records, 8u);
}

TEST(DmiSession, LogitsBelongToTheStepWhoseLastTokensTheyAre) {
  Bridge bridge;
  TestRow logits;
  logits.act = "final_logits";
  logits.layer = -1;
  logits.start = 1;
  logits.shape = {1, 6};
  // First the logits of token 1 alone, then the step of tokens 0 and 1.
  bridge.play(hello() + insert(block_of({logits})) + insert(block_of({{}})));
  EXPECT_EQ(bridge.counts.rows_written, 1u);
  bridge.ledger().tick(now_ns());
  EXPECT_EQ(bridge.counts.rows_written, 2u);
  EXPECT_EQ(bridge.counts.steps, 1u);
}

TEST(DmiSession, AFullRingDropsAndCounts) {
  Bridge bridge(64 * 1024);
  TestRow large;
  large.shape = {2, 6000};
  large.bytes = std::string(48000, 'y');
  std::vector<TestRow> rows(4, large);
  for (int32_t layer = 0; layer < 4; ++layer) rows[static_cast<size_t>(layer)].layer = layer;
  EXPECT_EQ(bridge.play(hello() + insert(block_of(rows))).back(), kEnd);
  EXPECT_EQ(bridge.counts.rows_written, 1u);
  EXPECT_EQ(bridge.counts.lost, 3u);
}

TEST(DmiSession, AClientThatStopsInARowCostsThatRowAlone) {
  Bridge bridge;
  const std::string all = hello() + insert(block_of({{}}));
  bridge.play(all.substr(0, all.size() - 22));  // ten bytes of the payload are missing
  EXPECT_EQ(bridge.counts.aborted, 1u);
  EXPECT_EQ(bridge.play(all).back(), kEnd);
  EXPECT_EQ(bridge.counts.rows_written, 1u);
}

TEST(DmiSession, AnUnknownTypeCostsItsBlockAlone) {
  for (const bool compressed : {false, true}) {
    Bridge bridge;
    const std::string bad = block_of({{}}, text("j") + text("JSON") + "whatever", 1);
    const std::string head = hello() + insert(bad, compressed);
    EXPECT_EQ(bridge.counts.blocks_damaged, 0u);
    if (compressed) {
      EXPECT_EQ(bridge.play(head + insert(block_of({{}}))).back(), kEnd);
      EXPECT_EQ(bridge.counts.rows_written, 1u);
    } else {
      bridge.play(head);
    }
    EXPECT_EQ(bridge.counts.blocks_damaged, 1u);
    EXPECT_EQ(bridge.counts.framing_lost, 0u);
  }
}

TEST(DmiSession, WhatIsNoProtocolIsClosed) {
  Bridge bridge;
  bridge.play("GET / HTTP/1.1\r\n\r\n");
  bridge.play(hello() + std::string(1, '\x7f'));
  bridge.play(hello() + insert(std::string("\x00\xff\xff\xff\xff\xff\xff\xff\xff\x0f\x01", 11)));
  EXPECT_EQ(bridge.counts.framing_lost, 3u);
  EXPECT_EQ(bridge.play(hello() + insert(block_of({{}}))).back(), kEnd);
}

TEST(DmiSession, ProbesAreAnsweredAndReadingBackIsRefused) {
  Bridge bridge;
  const std::string probe = bridge.play(hello() + "\x04" + query("SELECT 1") + end_block());
  EXPECT_EQ(probe.back(), kEnd);
  const std::string refused = bridge.play(hello() + query("SELECT x FROM offload") + end_block());
  EXPECT_NE(refused.find("--tee"), std::string::npos);
}

TEST(DmiSession, ClientsOfOneRequestWriteAtOnceWhileTimeGoesBy) {
  Bridge bridge(16 << 20);
  std::vector<std::thread> clients;
  for (int32_t layer = 0; layer < 4; ++layer) {
    clients.emplace_back([&bridge, layer] {
      for (int32_t at = 0; at < 20; ++at) {
        TestRow row;
        row.layer = layer;
        row.start = 2 * at;
        row.end = row.start + 2;
        TestRow logits = row;
        logits.act = "final_logits";
        logits.layer = -1;
        logits.start = row.end - 1;
        logits.shape = {1, 6};
        // The last client breaks off in its last row.
        const std::string all = hello() + insert(block_of({logits, row}), at % 2 == 1);
        bridge.play(layer == 3 ? all.substr(0, all.size() - 30) : all);
      }
    });
  }
  std::atomic<bool> over = false;
  std::thread clock([&] {
    while (!over) bridge.ledger().tick(now_ns());
  });
  for (std::thread &client : clients) client.join();
  over = true;
  clock.join();
  bridge.ledger().end_all();
  const uint64_t kept = bridge.counts.rows_written + bridge.counts.duplicates;
  EXPECT_EQ(bridge.counts.rows, kept + bridge.counts.aborted + bridge.counts.lost);
  EXPECT_GE(bridge.counts.rows_written, 60u);
  EXPECT_EQ(bridge.counts.lost, 0u);
  EXPECT_EQ(bridge.counts.requests, 1u);
}

TEST(DmiSession, DamagedSessionsNeverEndTheBridge) {
  Bridge bridge;
  std::mt19937 random(20);
  for (int round = 0; round < 400; ++round) {
    const bool compressed = random() % 3 == 0;
    std::string all = hello() + insert(block_of(std::vector<TestRow>(3)), compressed);
    for (uint32_t changes = 1 + random() % 4; changes > 0; --changes) {
      const size_t at = random() % all.size();
      switch (random() % 3) {
        case 0:
          all[at] = static_cast<char>(random());
          break;
        case 1:
          all.erase(at, random() % 8);
          break;
        default:
          all.insert(at, std::string(random() % 12, static_cast<char>(random())));
      }
    }
    bridge.play(all);
    bridge.ledger().tick(now_ns());
  }
  // What is whole is still taken.
  TestRow fresh;
  fresh.request = "fresh";
  EXPECT_EQ(bridge.play(hello() + insert(block_of({fresh}))).back(), kEnd);
}

}  // namespace
}  // namespace ring2::dmi
