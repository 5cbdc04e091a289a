// The low-rank part of linear maps of few rows, on a CPU; see `LowRank` in Rust.
#pragma once

#include <vector>

#include "shim.h"

// Rows are padded to a multiple of this number.
constexpr int64_t kRowLanes = 16;

inline int64_t padded_rows(int64_t rows) { return (rows + kRowLanes - 1) / kRowLanes * kRowLanes; }

// The low-rank part of some outputs.
struct LowRankPart {
  // b, [outputs, rank].
  at::Tensor b;
  // scale · a xᵀ, [rank, padded rows].
  std::vector<float> low;
  int64_t first;
};

// Computes the first product of each part; x: [rows, inputs].
std::vector<LowRankPart> podium_low_rank_parts(const at::Tensor& x, const podium_low_rank* parts, size_t count);

// Adds the parts of the outputs `first` to `end` to block [outputs, padded rows].
void podium_add_low_rank(
    const std::vector<LowRankPart>& parts, float* block, int64_t padded, int64_t first, int64_t end);
