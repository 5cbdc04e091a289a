// Vectors of the processor, and functions for each width of them.
//
// Files that include this are compiled with products fused into sums where the processor can: the bits are the same for all
// widths that can (AVX2 with FMA, and AVX-512), and others without.
#pragma once

#include "vectorised.h"

// A vector of the processor.
template <int64_t kLanes>
struct Vector {
  typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
  static_assert(sizeof(Floats) == kLanes * sizeof(float));

  Floats floats;

  PODIUM_INLINE static Vector load(const float* x) {
    Vector vector;
    std::memcpy(&vector.floats, x, sizeof(Floats));
    return vector;
  }

  PODIUM_INLINE static Vector load(const c10::BFloat16* x) {
    float numbers[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      numbers[lane] = widen(x[lane]);
    }
    return load(numbers);
  }
};

// Defines `name`, a function of a type T of numbers that returns `function<lanes, T>` for the width of the processor's vectors.
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 12
#define PODIUM_FOR_WIDTHS(name, function, parameters, arguments)                              \
  template <typename T>                                                                       \
  __attribute__((target("arch=x86-64-v4"))) void name##_wide parameters {                     \
    function<16, T> arguments;                                                                \
  }                                                                                           \
  template <typename T>                                                                       \
  __attribute__((target("arch=x86-64-v3"))) void name##_middle parameters {                   \
    function<8, T> arguments;                                                                 \
  }                                                                                           \
  template <typename T>                                                                       \
  void name##_narrow parameters {                                                             \
    function<4, T> arguments;                                                                 \
  }                                                                                           \
  template <typename T>                                                                       \
  auto name() {                                                                               \
    static const auto chosen = __builtin_cpu_supports("x86-64-v4") ? name##_wide<T>           \
        : __builtin_cpu_supports("x86-64-v3")                      ? name##_middle<T>         \
                                                                   : name##_narrow<T>;        \
    return chosen;                                                                            \
  }
#else
#define PODIUM_FOR_WIDTHS(name, function, parameters, arguments) \
  template <typename T>                                          \
  void name##_narrow parameters {                                \
    function<4, T> arguments;                                    \
  }                                                              \
  template <typename T>                                          \
  auto name() {                                                  \
    return name##_narrow<T>;                                     \
  }
#endif
