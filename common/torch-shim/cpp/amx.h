// Products of few rows in bfloat16 by the tile units of x86 processors (AMX-BF16).
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

// Whether the processor has tile units, the operating system lets this process use them, and ONEDNN_MAX_CPU_ISA does not
// exclude them.
bool podium_has_tiles();

// Rows of inputs in the order in which the tile units read them.
struct TileRows {
  // Pairs of adjacent inputs of each row, [inputs / 2, padded rows].
  std::vector<uint32_t> pairs;
  int64_t inputs;
  int64_t padded;
};

// Whether `podium_tile_product` computes these shapes; x: [rows, inputs], weight: [outputs, inputs].
bool podium_fits_tiles(const at::Tensor& x, const at::Tensor& weight);

TileRows podium_tile_rows(const at::Tensor& x);

// Writes block [16, padded rows] = weight xᵀ in float32, for 16 rows of the weight, `stride` numbers apart.
void podium_tile_product(const TileRows& x, const c10::BFloat16* weight, int64_t stride, float* block);

// Configures the tile units of this thread as long as it lives.
class Tiles {
 public:
  Tiles();
  ~Tiles();
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};
