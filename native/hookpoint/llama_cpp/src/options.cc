#include "options.h"

#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ring2.h"
#include "ring2_hooks.h"

namespace ring2_llama {

namespace {

constexpr uint64_t kPayloadMegabytes = 256;
constexpr uint64_t kPayloadMegabytesMax = uint64_t{1} << 20;
constexpr uint64_t kIdleSeconds = 10;
constexpr uint64_t kIdleSecondsMax = 86400;
constexpr char kHooks[] = "resid_pre,resid_final,final_logits,token_ids,pattern";

std::string text(const char *name, const char *otherwise) {
  const char *value = std::getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

uint64_t number(const char *name, uint64_t otherwise, uint64_t most) {
  const std::string given = text(name, "");
  if (given.empty()) return otherwise;
  char *end = nullptr;
  const unsigned long long value = std::strtoull(given.c_str(), &end, 10);
  if (*end == '\0' && value >= 1 && value <= most) return value;
  say("%s: expected a whole number from 1 to %llu, got \"%s\"; %llu is used", name,
      static_cast<unsigned long long>(most), given.c_str(),
      static_cast<unsigned long long>(otherwise));
  return otherwise;
}

uint32_t hook_bits(const std::string &list) {
  if (list == "all") return UINT32_MAX;
  uint32_t bits = 0;
  for (size_t start = 0; start <= list.size();) {
    const size_t end = std::min(list.find(',', start), list.size());
    const std::string name = list.substr(start, end - start);
    start = end + 1;
    bool known = name.empty();
    for (uint32_t hook = 0; hook < RING2_HOOKS_MAX; ++hook) {
      const char *fact = ring2_hook_facts[hook].name;
      if (fact == nullptr || name != fact) continue;
      bits |= uint32_t{1} << hook;
      known = true;
    }
    if (!known) {
      say("RING2_LLAMA_HOOKS: expected names of docs/hooks.md with commas between, or all; \"%s\" is "
          "none and is passed over", name.c_str());
    }
  }
  return bits;
}

}  // namespace

void say(const char *format, ...) {
  char line[512];
  va_list values;
  va_start(values, format);
  std::vsnprintf(line, sizeof line, format, values);
  va_end(values);
  std::fprintf(stderr, "ring2: %s\n", line);
}

const Options &options() {
  static const Options read{
      text("RING2_LLAMA_SEGMENT", ("llama-" + std::to_string(getpid())).c_str()),
      text("RING2_LLAMA_DIRECTORY", ""),
      number("RING2_LLAMA_PAYLOAD_MB", kPayloadMegabytes, kPayloadMegabytesMax) << 20,
      hook_bits(text("RING2_LLAMA_HOOKS", kHooks)),
      text("RING2_LLAMA_CONTROL", ""),
      number("RING2_LLAMA_IDLE_SECONDS", kIdleSeconds, kIdleSecondsMax) * 1'000'000'000};
  return read;
}

}  // namespace ring2_llama
