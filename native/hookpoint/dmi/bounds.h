// Bounds of the bridge, all in one place. Everything a client sends is checked against one of these
// before memory is taken for it; what is beyond is read, dropped and counted.
#ifndef RING2_DMI_BOUNDS_H
#define RING2_DMI_BOUNDS_H

#include <cstdint>

namespace ring2::dmi {

// The dialect of the protocol that is announced to every client, and to a real server. From 54456
// on a server has to answer each block of an INSERT with its counters.
inline constexpr uint64_t kRevision = 54453;

inline constexpr uint64_t kBufferBytes = 64 * 1024;      // of one connection, for what is small
inline constexpr uint64_t kQueryBytesMax = 1 << 20;      // text of a statement that is looked at
inline constexpr uint64_t kNameBytesMax = 4096;          // of a column, a type, a setting
inline constexpr uint64_t kIdBytesMax = 1024;            // of a model, a request, a hook
inline constexpr uint64_t kColumnsMax = 1024;            // of a block
inline constexpr uint64_t kBlockRowsMax = 65536;         // rows of a block whose facts are kept
inline constexpr uint64_t kRowsFreeBytes = 1 << 20;      // of a block's facts, in no common bound
inline constexpr uint64_t kStringBytesMax = uint64_t{1} << 34;  // longer: the framing is lost
inline constexpr uint64_t kFrameBytesMax = uint64_t{1} << 30;  // of a compressed frame
inline constexpr uint64_t kFrameKeptBytes = 1 << 20;     // of a frame's buffer, kept between frames
inline constexpr uint64_t kHeapBytesMax = 512 << 20;     // of all frames, held payloads, facts of rows
inline constexpr uint32_t kTypeDepthMax = 8;
inline constexpr uint32_t kTypePartsMax = 64;
inline constexpr uint32_t kTablesMax = 64;               // whose columns are remembered

inline constexpr uint32_t kModelsMax = 8;                // segments at once
inline constexpr uint32_t kRequestsMax = 4096;           // of one model, not ended
inline constexpr uint32_t kStepsMax = 131072;            // of one model's requests
inline constexpr uint32_t kCatalogueMax = 4096;          // (hook, layer, shard) of one model
inline constexpr uint32_t kHeldRowsMax = 256;            // logits that wait for their step
// The exporter remembers 256 steps of a segment; an older one is announced again in time.
inline constexpr uint64_t kStepsRemembered = 128;

inline constexpr uint64_t kMillisecond = 1000 * 1000;    // nanoseconds
inline constexpr uint64_t kSecond = 1000 * kMillisecond;
// A payload that has its place in the ring must come, or the exporter would wait for it.
inline constexpr uint64_t kClaimNs = 2 * kSecond;
inline constexpr uint64_t kClaimBytesPerSecond = 32 << 20;
inline constexpr uint64_t kHoldNs = kSecond;             // logits wait so long for their step
// What a client has begun: its Hello, and so many bytes of every packet behind it.
inline constexpr uint64_t kHelloNs = 5 * kSecond;
inline constexpr uint64_t kPacketNs = 30 * kSecond;
inline constexpr uint64_t kPacketProgressBytes = 32 << 20;
inline constexpr uint64_t kConnectionsLeaving = 16;      // sent away and not gone, beyond the bound
inline constexpr uint64_t kTickNs = 100 * kMillisecond;
inline constexpr uint64_t kSendNs = 10 * kSecond;        // a client that takes no answer is gone
inline constexpr uint64_t kSilenceNs = 100 * kMillisecond;
// A real server that stalled is left alone, twice as long each time that it stalls again before it
// has answered an INSERT; until then it has less time than --tee-wait-ms.
inline constexpr uint64_t kTeeAgainNs = 10 * kSecond;
inline constexpr uint64_t kTeeAgainNsMax = 320 * kSecond;
inline constexpr uint64_t kTeeDoubtNs = kSecond;
inline constexpr uint64_t kModelIdleNs = 60 * kSecond;  // before another model has its segment
inline constexpr uint64_t kModelAgainNs = 200 * kMillisecond;
inline constexpr uint64_t kAnswerBytesMax = 4 << 20;     // of a real server, not yet passed on
inline constexpr uint64_t kNever = UINT64_MAX;

}  // namespace ring2::dmi
#endif
