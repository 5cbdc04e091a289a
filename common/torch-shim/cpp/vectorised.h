// Loops over numbers that the compiler vectorises, for each width of the processor's vectors.
//
// Sums have sixteen parts in a fixed order, and products are never fused with sums: the bits are the same for every width.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

// One version of a function for each width of vectors; the processor decides at start-up.
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 12
#define PODIUM_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PODIUM_VECTORISED
#endif
#define PODIUM_INLINE inline __attribute__((always_inline))

constexpr int64_t kParts = 16;
// The least numbers of a thread, in units of `kCheap` operations: with fewer, waking it takes longer than computing them. A
// thread that waits takes 50 to 200 µs to wake, the longest on a virtual machine.
constexpr int64_t kGrain = 65536;
// Operations of a number, as a multiple of those of a copy or a norm.
constexpr int64_t kCheap = 1;
constexpr int64_t kExponential = 4;

PODIUM_INLINE float widen(float x) { return x; }

PODIUM_INLINE float widen(c10::BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.x) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

template <typename T>
PODIUM_INLINE T narrow(float x);

template <>
PODIUM_INLINE float narrow<float>(float x) {
  return x;
}

// Rounds to nearest, ties to even. A NaN stays a NaN.
template <>
PODIUM_INLINE c10::BFloat16 narrow<c10::BFloat16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  return c10::BFloat16(static_cast<uint16_t>(x == x ? rounded : nan), c10::BFloat16::from_bits());
}

// Returns e to the power of x with a relative error below 2⁻²², at least 1e-38 and at most 1e38; a NaN for a NaN.
PODIUM_INLINE float exponential(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 87.3f ? 87.3f : x;
  // Adding this number rounds to an integer.
  constexpr float kRound = 12582912.0f;
  const float power = (x * 1.44269504f + kRound) - kRound;
  // The logarithm of 2 in two parts, of which the first has few digits: its product is exact.
  const float rest = (x - power * 0.693359375f) + power * 2.12194440e-4f;
  // Taylor's series: the rest is at most half of that logarithm.
  float series = 1.0f / 5040.0f;
  series = series * rest + 1.0f / 720.0f;
  series = series * rest + 1.0f / 120.0f;
  series = series * rest + 1.0f / 24.0f;
  series = series * rest + 1.0f / 6.0f;
  series = series * rest + 0.5f;
  series = series * rest + 1.0f;
  series = series * rest + 1.0f;
  // A NaN has no integer; the series keeps it.
  const auto exponent = static_cast<int32_t>(power == power ? power : 0.0f);
  const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return series * scale;
}

// The sum of `term(i)` for i below `count`.
template <typename Term>
PODIUM_INLINE float sum(int64_t count, const Term& term) {
  float parts[kParts] = {};
  int64_t first = 0;
  for (; first + kParts <= count; first += kParts) {
    for (int64_t part = 0; part < kParts; ++part) {
      parts[part] += term(first + part);
    }
  }
  for (int64_t part = 0; first + part < count; ++part) {
    parts[part] += term(first + part);
  }
  for (int64_t width = kParts / 2; width > 0; width /= 2) {
    for (int64_t part = 0; part < width; ++part) {
      parts[part] += parts[part + width];
    }
  }
  return parts[0];
}

// Writes e to the powers of n numbers less `largest`, and returns their sum; the same bits for every width. `y` may be `x`.
float podium_exponentials(const float* x, int64_t n, float largest, float* y);

// Calls `with(first, end)` for parts of the rows, on the threads of libtorch.
template <typename With>
void in_parallel(int64_t rows, int64_t numbers_per_row, int64_t cost, const With& with) {
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, cost * numbers_per_row)), with);
}

inline void check_type(const at::Tensor& x) {
  TORCH_CHECK(
      x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, "type ", x.scalar_type(),
      " of activations: expected float32 or bfloat16");
}
