// e^t for t <= 0 and ln p for 0 <= p, on float vectors, by polynomials of our own.
//
// Both were fitted for the least largest error (Lawson iteration on Chebyshev nodes) and are
// checked against libm in the unit tests over their whole range:
//   exp: t = n ln 2 + r with |r| <= ln 2 / 2; e^r has degree 5 with the first two coefficients
//        fixed to 1, so that e^0 is exactly 1. Error within 4 units in the last place.
//   ln:  p = 2^e m with sqrt(1/2) <= m < sqrt(2); ln m has degree 8 in m - 1 with the first two
//        coefficients fixed to 0 and 1, so that ln 1 is exactly 0. Error within 2 units in the last
//        place of 1 + |ln p|.
//
// Products and sums are left for the compiler to fuse where the instruction set can
// (-ffp-contract=fast): it is how vector extensions reach that instruction, and no result here
// relies on a product being rounded before it is added.
#ifndef RING2_KERNELS_VECTOR_MATH_H
#define RING2_KERNELS_VECTOR_MATH_H

#include "vector.h"

namespace ring2 {
namespace {

// Below this, e^t would leave float32's normal range. What the clamp adds is at most 1.7e-38 for an
// element, beside a sum that is at least 1: nothing in float64.
constexpr float kExponentFloor = -87.0f;
constexpr float kSmallestNormal = 1.17549435e-38f;

RING2_INLINE Floats exp_clamped(Floats t) {
  const float log2_e = 1.44269504f;
  const float round_to_integer = 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the integer
  const Floats shifted = t * log2_e + round_to_integer;
  const Floats n = shifted - round_to_integer;
#if defined(__FMA__)
  const Floats r = t - n * 0.693147182f;
#else
  // ln 2 in two parts, the first so short that its product with n is exact.
  const Floats r = (t - n * 0.693359375f) - n * -2.12194440e-4f;
#endif
  Floats power = 0.008312520571053028f * r + 0.041890159249305725f;
  power = power * r + 0.16667114198207855f;
  power = power * r + 0.499992311000824f;
  power = power * r + 1.0f;
  power = power * r + 1.0f;
  return bits<Floats>(bits<Words>(power) + (bits<Words>(shifted) << 23));
}

// p below the smallest normal number, 0 included, counts as that number: the callers multiply by p,
// and 0 ln 0 becomes 0 without a branch.
RING2_INLINE Floats log_clamped(Floats p) {
  p = larger(p, broadcast(kSmallestNormal));
  const Ints from_root_half = bits<Ints>(p) - 0x3f3504f3;
  const Ints exponent = from_root_half >> 23;
  const Floats f = bits<Floats>(bits<Ints>(p) - (exponent << 23)) - 1.0f;
  Floats tail = -0.10034618526697159f * f + 0.1633564680814743f;
  tail = tail * f + -0.17325995862483978f;
  tail = tail * f + 0.19888277351856232f;
  tail = tail * f + -0.2496146559715271f;
  tail = tail * f + 0.33335262537002563f;
  tail = tail * f + -0.500005841255188f;
  const Floats log_m = (tail * f) * f + f;
  return __builtin_convertvector(exponent, Floats) * 0.693147182f + log_m;
}

}  // namespace
}  // namespace ring2
#endif
