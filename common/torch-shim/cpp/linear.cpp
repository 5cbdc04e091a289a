// Linear maps of few rows, on a CPU.
#include "shim.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include "vectorised.h"

namespace {

// With more rows the usual product is as fast.
constexpr int64_t kFewRows = 128;
// Adjacent numbers that are moved at once: a line of the cache.
constexpr int64_t kBlock = 16;

// Writes columns `first` to `end` of y [rows, columns] from x [columns, rows], with the bias added unless it is nullptr.
PODIUM_VECTORISED void transpose(
    const float* x, const float* bias, float* y, int64_t rows, int64_t columns, int64_t first, int64_t end) {
  for (int64_t block = first; block < end; block += kBlock) {
    const int64_t count = std::min(kBlock, end - block);
    for (int64_t row = 0; row < rows; ++row) {
      float* out = y + row * columns + block;
      for (int64_t i = 0; i < count; ++i) {
        out[i] = x[(block + i) * rows + row] + (bias == nullptr ? 0.0f : bias[block + i]);
      }
    }
  }
}

}  // namespace

char* podium_torch_linear(at::Tensor* x, at::Tensor* weight, at::Tensor* bias, at::Tensor** output) {
  return podium_guarded([=] {
    const auto rows = x->size(0);
    if (!x->is_cpu() || x->scalar_type() != at::kFloat || rows < 2 || rows > kFewRows) {
      *output = new at::Tensor(
          at::linear(*x, *weight, bias == nullptr ? std::nullopt : std::optional<at::Tensor>(*bias)));
      return;
    }
    // Kernels for products are fastest if the first factor has many rows.
    const auto product = at::mm(*weight, x->t());
    const auto columns = product.size(0);
    TORCH_CHECK(
        product.is_contiguous() && (bias == nullptr || (bias->is_contiguous() && bias->numel() == columns)),
        "a product of ", product.sizes(), " with strides ", product.strides(), ": expected contiguous numbers");
    auto y = at::empty({rows, columns}, product.options());
    const auto blocks = (columns + kBlock - 1) / kBlock;
    in_parallel(blocks, kBlock * rows, [&](int64_t first, int64_t end) {
      transpose(
          product.const_data_ptr<float>(), bias == nullptr ? nullptr : bias->const_data_ptr<float>(),
          y.data_ptr<float>(), rows, columns, first * kBlock, std::min(columns, end * kBlock));
    });
    *output = new at::Tensor(y);
  });
}
