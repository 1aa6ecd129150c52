// Which kernels this machine can run: asked of the processor by cpuid, and of the operating system
// by xgetbv, because vector registers that it does not save would be corrupted at a context switch.
// The compiler's own __builtin_cpu_supports answers wrongly under some toolchains.
#include <cstdlib>
#include <cstring>

#include "kernels.h"
#include "ring2.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ring2 {
namespace {

enum Level { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

#if defined(__x86_64__)

constexpr unsigned kXmmYmmState = 0x6;
constexpr unsigned kZmmState = 0xe6;

unsigned saved_register_state() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

Level supported_level() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return kPortable;
  const unsigned needed = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
  if ((c & needed) != needed) return kPortable;
  const unsigned state = saved_register_state();
  if ((state & kXmmYmmState) != kXmmYmmState) return kPortable;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & bit_AVX2) == 0) return kPortable;
  const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
  if ((b & avx512) != avx512 || (state & kZmmState) != kZmmState) return kAvx2;
  return kAvx512;
}

#else

Level supported_level() { return kPortable; }

#endif

Level wanted_level() {
  const char *wanted = std::getenv("RING2_ISA");
  if (wanted == nullptr) return kAvx512;
  if (std::strcmp(wanted, "portable") == 0) return kPortable;
  if (std::strcmp(wanted, "avx2") == 0) return kAvx2;
  return kAvx512;
}

const Kernels &choose() {
  const Level supported = supported_level();
  const Level wanted = wanted_level();
  const Level level = wanted < supported ? wanted : supported;
#if defined(__x86_64__)
  if (level == kAvx512) return kAvx512Kernels;
  if (level == kAvx2) return kAvx2Kernels;
#endif
  (void)level;
  return kPortableKernels;
}

}  // namespace

bool machine_runs(const Kernels &kernels) {
#if defined(__x86_64__)
  if (&kernels == &kAvx512Kernels) return supported_level() >= kAvx512;
  if (&kernels == &kAvx2Kernels) return supported_level() >= kAvx2;
#endif
  return &kernels == &kPortableKernels;
}

const Kernels &selected_kernels() {
  static const Kernels &kernels = choose();
  return kernels;
}

}  // namespace ring2

extern "C" RING2_API const char *ring2_isa(void) { return ring2::selected_kernels().name; }
