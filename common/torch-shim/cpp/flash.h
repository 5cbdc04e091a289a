// Attention of sequences that lie in adjacent rows, without materialised scores.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

// Sequences of equal lengths: `count` times `queries` adjacent rows of queries, and `keys` adjacent rows of keys.
struct podium_run {
  int64_t first_query;
  int64_t first_key;
  int64_t count;
  int64_t queries;
  int64_t keys;
};

// What all calls of one attention share. A row of queries is [query heads, D], one of keys and values [key heads, D].
struct podium_attention {
  const at::Tensor& query;
  const at::Tensor& key;
  const at::Tensor& value;
  double scale;
};

// Whether all queries and keys are finite. Reads a number, so on a CPU only; true on a GPU, whose kernels keep NaN.
bool podium_finite(const podium_attention& attention);

// Writes the attention of each run's queries to its keys into the rows of `output`, like `query`, and the logarithm of the
// sum of exponentials into those of `lse`, [rows, query heads], float32 or wider. `finite`: see `podium_finite`.
void podium_flash(
    const podium_attention& attention, const std::vector<podium_run>& runs, bool causal, bool finite,
    const at::Tensor& output, const at::Tensor& lse);

// Gradients of an attention, float32 or wider, in the rows of its inputs.
struct podium_gradients {
  at::Tensor query;
  at::Tensor key;
  at::Tensor value;
};

// Adds the gradients of each run to `gradients`. `output` and `lse` are those of the whole attention of which the run
// is a part.
void podium_flash_backward(
    const podium_attention& attention, const std::vector<podium_run>& runs, bool causal, const at::Tensor& output,
    const at::Tensor& lse, const at::Tensor& gradient, const podium_gradients& gradients);
