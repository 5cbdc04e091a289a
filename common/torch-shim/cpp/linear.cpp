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

// Writes columns `first` to `end` of y [rows, n], silu(gate) * up, from x [2 n, rows], which holds gates and then ups.
PODIUM_VECTORISED void gate_transposed(const float* x, float* y, int64_t rows, int64_t n, int64_t first, int64_t end) {
  float gated[kBlock * kFewRows];
  for (int64_t block = first; block < end; block += kBlock) {
    const int64_t count = std::min(kBlock, end - block);
    const float* gates = x + block * rows;
    const float* ups = x + (n + block) * rows;
    for (int64_t i = 0; i < count * rows; ++i) {
      gated[i] = gates[i] / (1.0f + exponential(-gates[i])) * ups[i];
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < count; ++i) {
        y[row * n + block + i] = gated[i * rows + row];
      }
    }
  }
}

// x [rows, inputs] times the transposed weight, [outputs, rows]: kernels for products are fastest if the first factor has
// many rows.
at::Tensor transposed_product(const at::Tensor& x, const at::Tensor& weight) {
  const auto product = at::mm(weight, x.t());
  TORCH_CHECK(
      product.is_contiguous(), "a product of ", product.sizes(), " with strides ", product.strides(),
      ": expected contiguous numbers");
  return product;
}

bool has_few_rows(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.size(0) >= 2 && x.size(0) <= kFewRows;
}

// Calls `with(first, end)` for parts of the columns of [rows, columns].
template <typename With>
void for_columns(int64_t rows, int64_t columns, int64_t cost, const With& with) {
  const auto blocks = (columns + kBlock - 1) / kBlock;
  in_parallel(blocks, kBlock * rows, cost, [&](int64_t first, int64_t end) {
    with(first * kBlock, std::min(columns, end * kBlock));
  });
}

}  // namespace

char* podium_torch_linear(at::Tensor* x, at::Tensor* weight, at::Tensor* bias, at::Tensor** output) {
  return podium_guarded([=] {
    if (!has_few_rows(*x)) {
      *output = new at::Tensor(
          at::linear(*x, *weight, bias == nullptr ? std::nullopt : std::optional<at::Tensor>(*bias)));
      return;
    }
    const auto product = transposed_product(*x, *weight);
    const auto rows = x->size(0), columns = product.size(0);
    TORCH_CHECK(
        bias == nullptr || (bias->is_contiguous() && bias->numel() == columns), "a bias of other than ", columns,
        " adjacent numbers");
    auto y = at::empty({rows, columns}, product.options());
    for_columns(rows, columns, kCheap, [&](int64_t first, int64_t end) {
      transpose(
          product.const_data_ptr<float>(), bias == nullptr ? nullptr : bias->const_data_ptr<float>(),
          y.data_ptr<float>(), rows, columns, first, end);
    });
    *output = new at::Tensor(y);
  });
}

char* podium_torch_gated_linear(at::Tensor* x, at::Tensor* weight, at::Tensor** output) {
  return podium_guarded([=] {
    TORCH_CHECK(weight->size(0) % 2 == 0, "a gate and a map of ", weight->size(0), " outputs: expected an even number");
    const auto rows = x->size(0), n = weight->size(0) / 2;
    if (!has_few_rows(*x)) {
      const auto product = at::linear(*x, *weight);
      *output = new at::Tensor(podium_gate(product.narrow(1, 0, n), product.narrow(1, n, n)));
      return;
    }
    const auto product = transposed_product(*x, *weight);
    auto y = at::empty({rows, n}, product.options());
    for_columns(rows, n, kExponential, [&](int64_t first, int64_t end) {
      gate_transposed(product.const_data_ptr<float>(), y.data_ptr<float>(), rows, n, first, end);
    });
    *output = new at::Tensor(y);
  });
}
