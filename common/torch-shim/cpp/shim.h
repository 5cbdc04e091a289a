// The C interface. Every function returns nullptr, or a message that `podium_torch_free` releases.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#define PODIUM_EXPORT extern "C" __attribute__((visibility("default")))

// Calls `body` and returns the message of its exception.
char* podium_guarded(const std::function<void()>& body) noexcept;

PODIUM_EXPORT void podium_torch_free(char* message);

// adjacent.cpp
// `*joint` is nullptr if the parts are not adjacent.
PODIUM_EXPORT char* podium_torch_adjacent(at::Tensor** parts, size_t count, at::Tensor** joint);

// attention.cpp
// Attention of prompts and, if there are any, of as many completions for each; see `attention` in Rust.
PODIUM_EXPORT char* podium_torch_attention(
    at::Tensor* query, at::Tensor* key, at::Tensor* value, const int64_t* prompts, size_t prompt_count,
    const int64_t* completions, size_t completion_count, bool last_queries, double scale, at::Tensor** output);

// cached.cpp
// What one step of decoding reads and writes; see `Cached` in Rust.
struct podium_cache {
  at::Tensor* prompt_key;
  at::Tensor* prompt_value;
  const int64_t* prompt_lengths;
  at::Tensor* own_key;
  at::Tensor* own_value;
  int64_t length;
  double scale;
};

// [completions, heads, D] each.
struct podium_new_rows {
  at::Tensor* query;
  at::Tensor* key;
  at::Tensor* value;
};

PODIUM_EXPORT char* podium_torch_cached_attention(podium_cache cache, podium_new_rows rows, at::Tensor** output);

// context.cpp
PODIUM_EXPORT char* podium_torch_set_deterministic(bool on);
PODIUM_EXPORT char* podium_torch_is_deterministic(bool* on);

// gate.cpp
PODIUM_EXPORT char* podium_torch_gate(at::Tensor* gate, at::Tensor* up, at::Tensor** output);
at::Tensor podium_gate(const at::Tensor& gate, const at::Tensor& up);

// linear.cpp
// scale · b a, added to the outputs from `first`; see `LowRank` in Rust.
struct podium_low_rank {
  at::Tensor* a;
  at::Tensor* b;
  double scale;
  int64_t first;
};

// Without gradients; `bias` may be nullptr.
PODIUM_EXPORT char* podium_torch_linear(
    at::Tensor* x, at::Tensor* weight, at::Tensor* bias, const podium_low_rank* parts, size_t count,
    at::Tensor** output);
// Without gradients; `weight` holds the gate's and then the other map's.
PODIUM_EXPORT char* podium_torch_gated_linear(
    at::Tensor* x, at::Tensor* weight, const podium_low_rank* parts, size_t count, at::Tensor** output);

// memory.cpp
struct podium_device_memory {
  int64_t allocated;
  int64_t peak_allocated;
  int64_t reserved;
  int64_t peak_reserved;
  int64_t free;
  int64_t total;
};

PODIUM_EXPORT char* podium_torch_empty_cache();
PODIUM_EXPORT char* podium_torch_device_memory(int8_t device, podium_device_memory* memory);
PODIUM_EXPORT char* podium_torch_reset_peak(int8_t device);
PODIUM_EXPORT char* podium_torch_track_start();
PODIUM_EXPORT char* podium_torch_track_stop(int64_t* peak, int64_t* remaining);

// operations.cpp
struct podium_operations {
  uint64_t calls;
  uint64_t kernels;
  uint64_t copies;
  uint64_t reads;
};

PODIUM_EXPORT char* podium_torch_count_start();
PODIUM_EXPORT char* podium_torch_count_stop(podium_operations* counted);

// optimizer.cpp
// Moves the gradient out of a parameter; `*gradient` is nullptr if there is none.
PODIUM_EXPORT char* podium_torch_take_gradient(at::Tensor* parameter, at::Tensor** gradient);
PODIUM_EXPORT char* podium_torch_fused_adamw(
    at::Tensor** weights, at::Tensor** gradients, at::Tensor** first_moments, at::Tensor** second_moments,
    size_t count, int64_t step, double learning_rate, double beta1, double beta2, double weight_decay, double epsilon);

// rows.cpp
PODIUM_EXPORT char* podium_torch_rms_norm(at::Tensor* x, at::Tensor* weight, double epsilon, at::Tensor** output);
PODIUM_EXPORT char* podium_torch_rotate(at::Tensor* x, at::Tensor* cosine, at::Tensor* sine, at::Tensor** output);
// Without gradients, on a CPU. The weights of both norms, or nullptr for both.
PODIUM_EXPORT char* podium_torch_norm_rotate(
    at::Tensor* x, int64_t query_heads, at::Tensor* query_weight, at::Tensor* key_weight, double epsilon,
    at::Tensor* cosine, at::Tensor* sine, at::Tensor** output);

// sampling.cpp
struct podium_selection {
  bool greedy;
  // 0 for all.
  int64_t top_k;
  // Of the tokens that may be drawn, in units of 2⁻⁵²; 0 for all.
  int64_t least;
};

struct podium_drawn {
  int64_t token;
  float logprob;
  float sampled_logprob;
};

// Writes one of `drawn` for each row; `uniform` has a number for each.
PODIUM_EXPORT char* podium_torch_draw(
    at::Tensor* logits, podium_selection selection, const double* uniform, podium_drawn* drawn);
