// What the environment says of the capture. Read once; a value that cannot be used is named in one log
// line and the default is taken: the engine serves on.
#ifndef RING2_LLAMA_OPTIONS_H
#define RING2_LLAMA_OPTIONS_H

#include <cstdint>
#include <string>

namespace ring2_llama {

struct Options {
  std::string segment;      // RING2_LLAMA_SEGMENT; default llama-<pid>
  std::string directory;    // RING2_LLAMA_DIRECTORY; empty: /dev/shm
  uint64_t payload_bytes;   // RING2_LLAMA_PAYLOAD_MB; default 256
  uint32_t hooks;           // RING2_LLAMA_HOOKS; bit of each hook id
  std::string channel;      // RING2_LLAMA_CONTROL; path of a Unix socket, empty: none
  uint64_t idle_ns;         // RING2_LLAMA_IDLE_SECONDS; default 10
};

const Options &options();

// One line on standard error, `ring2: …`.
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace ring2_llama

#endif
