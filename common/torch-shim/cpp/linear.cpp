// Linear maps of few rows, with adapters, on a CPU.
#include "shim.h"

#include <optional>
#include <type_traits>

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include "amx.h"
#include "low_rank.h"
#include "vectorised.h"

namespace {

// With more rows the usual product is as fast.
constexpr int64_t kFewRows = 128;
// Adjacent numbers that are moved at once: a line of the cache.
constexpr int64_t kBlock = 16;

// Columns of a result, transposed: [kBlock, padded rows].
struct Block {
  alignas(64) float numbers[kBlock * kFewRows];
};

template <typename T>
PODIUM_INLINE void load(const T* x, int64_t rows, int64_t count, float* block) {
  const int64_t padded = padded_rows(rows);
  for (int64_t column = 0; column < count; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      block[column * padded + row] = widen(x[column * rows + row]);
    }
    for (int64_t row = rows; row < padded; ++row) {
      block[column * padded + row] = 0.0f;
    }
  }
}

template <typename T>
PODIUM_INLINE void store(const float* block, int64_t rows, int64_t count, T* y, int64_t columns) {
  const int64_t padded = padded_rows(rows);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < count; ++i) {
      y[row * columns + i] = narrow<T>(block[i * padded + row]);
    }
  }
}

template <typename T>
PODIUM_INLINE void add_bias(const T* bias, int64_t padded, int64_t count, float* block) {
  for (int64_t i = 0; i < count; ++i) {
    const float number = widen(bias[i]);
    for (int64_t row = 0; row < padded; ++row) {
      block[i * padded + row] += number;
    }
  }
}

PODIUM_INLINE void apply_gate(const float* up, int64_t numbers, float* gate) {
  for (int64_t i = 0; i < numbers; ++i) {
    gate[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
  }
}

// One version of each of the steps for each width of vectors.
#define PODIUM_STEPS(T, name)                                                                              \
  PODIUM_VECTORISED void load_##name(const T* x, int64_t rows, int64_t count, float* block) {              \
    load(x, rows, count, block);                                                                           \
  }                                                                                                        \
  PODIUM_VECTORISED void store_##name(const float* block, int64_t rows, int64_t count, T* y, int64_t n) {  \
    store(block, rows, count, y, n);                                                                       \
  }
PODIUM_STEPS(float, float)
PODIUM_STEPS(c10::BFloat16, bfloat16)
#undef PODIUM_STEPS

PODIUM_VECTORISED void gate_block(const float* up, int64_t numbers, float* gate) { apply_gate(up, numbers, gate); }

void load_block(const float* x, int64_t rows, int64_t count, float* block) { load_float(x, rows, count, block); }
void load_block(const c10::BFloat16* x, int64_t rows, int64_t count, float* block) {
  load_bfloat16(x, rows, count, block);
}
void store_block(const float* block, int64_t rows, int64_t count, float* y, int64_t n) {
  store_float(block, rows, count, y, n);
}
void store_block(const float* block, int64_t rows, int64_t count, c10::BFloat16* y, int64_t n) {
  store_bfloat16(block, rows, count, y, n);
}

// Blocks of the product of a weight and few rows, [outputs, rows]: kernels are fastest if the first factor has many rows.
template <typename T>
class Product {
 public:
  // `outputs`: the number of outputs that blocks begin and end at.
  Product(const at::Tensor& x, const at::Tensor& weight, int64_t outputs) : weight_(weight), rows_(x.size(0)) {
    if (outputs % kBlock == 0 && podium_fits_tiles(x, weight)) {
      tiles_ = podium_tile_rows(x);
      return;
    }
    product_ = at::mm(weight, x.t());
    TORCH_CHECK(
        product_.is_contiguous(), "a product of ", product_.sizes(), " with strides ", product_.strides(),
        ": expected contiguous numbers");
  }

  // Operations of an output, in units of `kCheap`.
  int64_t cost() const { return tiles_ ? weight_.size(1) : rows_; }

  // Calls `with` on the current thread, which may then `load` blocks.
  template <typename With>
  void on_this_thread(const With& with) const {
    std::optional<Tiles> tiles;
    if (tiles_) {
      tiles.emplace();
    }
    with();
  }

  void load(int64_t first, int64_t end, float* block) const {
    if constexpr (std::is_same_v<T, at::BFloat16>) {
      if (tiles_) {
        const auto stride = weight_.stride(0);
        podium_tile_product(*tiles_, weight_.const_data_ptr<T>() + first * stride, stride, block);
        return;
      }
    }
    load_block(product_.const_data_ptr<T>() + first * rows_, rows_, end - first, block);
  }

 private:
  at::Tensor weight_;
  int64_t rows_;
  std::optional<TileRows> tiles_;
  at::Tensor product_;
};

bool has_few_rows(const at::Tensor& x) {
  const auto kind = x.scalar_type();
  return x.is_cpu() && (kind == at::kFloat || kind == at::kBFloat16) && x.stride(1) == 1 && x.size(0) >= 2 &&
      x.size(0) <= kFewRows;
}

// Calls `with(first, end)` for blocks of `outputs`, in parallel; `cost`: operations of an output in addition to the product's.
template <typename T, typename With>
void for_blocks(const Product<T>& product, int64_t outputs, int64_t cost, const With& with) {
  const auto blocks = (outputs + kBlock - 1) / kBlock;
  in_parallel(blocks, kBlock * (product.cost() + cost), kCheap, [&](int64_t first, int64_t end) {
    product.on_this_thread([&] {
      for (int64_t block = first; block < end; ++block) {
        with(block * kBlock, std::min(outputs, (block + 1) * kBlock));
      }
    });
  });
}

// Operations of a number of a low-rank part, in units of `kCheap`.
int64_t cost(const std::vector<LowRankPart>& parts) {
  int64_t rank = 0;
  for (const auto& part : parts) {
    rank = std::max(rank, part.b.size(1));
  }
  return rank / 4;
}

template <typename T>
at::Tensor few_rows(const at::Tensor& x, const at::Tensor& weight, const T* bias, const std::vector<LowRankPart>& parts) {
  const auto rows = x.size(0), columns = weight.size(0), padded = padded_rows(rows);
  const Product<T> product(x, weight, columns);
  auto y = at::empty({rows, columns}, x.options());
  auto* out = y.data_ptr<T>();
  for_blocks(product, columns, rows * cost(parts), [&](int64_t first, int64_t end) {
    Block block;
    product.load(first, end, block.numbers);
    podium_add_low_rank(parts, block.numbers, padded, first, end);
    if (bias != nullptr) {
      add_bias(bias + first, padded, end - first, block.numbers);
    }
    store_block(block.numbers, rows, end - first, out + first, columns);
  });
  return y;
}

template <typename T>
at::Tensor few_gated_rows(const at::Tensor& x, const at::Tensor& weight, const std::vector<LowRankPart>& parts) {
  const auto rows = x.size(0), n = weight.size(0) / 2, padded = padded_rows(rows);
  const Product<T> product(x, weight, n);
  auto y = at::empty({rows, n}, x.options());
  auto* out = y.data_ptr<T>();
  for_blocks(product, n, product.cost() + rows * (kExponential + 2 * cost(parts)), [&](int64_t first, int64_t end) {
    Block gates, ups;
    product.load(first, end, gates.numbers);
    product.load(n + first, n + end, ups.numbers);
    podium_add_low_rank(parts, gates.numbers, padded, first, end);
    podium_add_low_rank(parts, ups.numbers, padded, n + first, n + end);
    gate_block(ups.numbers, (end - first) * padded, gates.numbers);
    store_block(gates.numbers, rows, end - first, out + first, n);
  });
  return y;
}

// The usual product, with the low-rank parts added in place.
at::Tensor many_rows(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor* bias, const podium_low_rank* parts, size_t count) {
  auto y = at::linear(x, weight, bias == nullptr ? std::nullopt : std::optional<at::Tensor>(*bias));
  for (size_t index = 0; index < count; ++index) {
    const auto& part = parts[index];
    const auto low = at::linear(x, part.a->to(x.scalar_type())).mul_(part.scale);
    y.narrow(1, part.first, part.b->size(0)).addmm_(low, part.b->to(x.scalar_type()).t());
  }
  return y;
}

void check(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor* bias, const podium_low_rank* parts, size_t count) {
  TORCH_CHECK(
      x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1) && x.device() == weight.device() &&
          x.scalar_type() == weight.scalar_type(),
      "inputs of ", x.sizes(), " in ", x.scalar_type(), " and a weight of ", weight.sizes(), " in ",
      weight.scalar_type(), ": expected [rows, inputs] and [outputs, inputs] in one type on one device");
  TORCH_CHECK(
      bias == nullptr ||
          (bias->is_contiguous() && bias->numel() == weight.size(0) && bias->device() == x.device() &&
           bias->scalar_type() == x.scalar_type()),
      "a bias of other than ", weight.size(0), " adjacent numbers of the type and device of the inputs");
  for (size_t index = 0; index < count; ++index) {
    const auto &a = *parts[index].a, &b = *parts[index].b;
    TORCH_CHECK(
        a.dim() == 2 && b.dim() == 2 && a.size(1) == x.size(1) && a.size(0) == b.size(1) && parts[index].first >= 0 &&
            parts[index].first + b.size(0) <= weight.size(0) && a.device() == x.device() && b.device() == x.device(),
        "low-rank factors of ", a.sizes(), " and ", b.sizes(), " from output ", parts[index].first, " for ",
        x.size(1), " inputs and ", weight.size(0), " outputs: expected [rank, inputs] and [outputs, rank]");
    check_type(a);
    check_type(b);
  }
}

}  // namespace

char* podium_torch_linear(
    at::Tensor* x, at::Tensor* weight, at::Tensor* bias, const podium_low_rank* parts, size_t count,
    at::Tensor** output) {
  return podium_guarded([=] {
    check(*x, *weight, bias, parts, count);
    if (!has_few_rows(*x)) {
      *output = new at::Tensor(many_rows(*x, *weight, bias, parts, count));
      return;
    }
    const auto low = podium_low_rank_parts(*x, parts, count);
    const auto with = [&](const auto* none) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(none)>>;
      return few_rows<T>(*x, *weight, bias == nullptr ? none : bias->const_data_ptr<T>(), low);
    };
    *output = new at::Tensor(
        x->scalar_type() == at::kFloat ? with(static_cast<const float*>(nullptr))
                                       : with(static_cast<const at::BFloat16*>(nullptr)));
  });
}

char* podium_torch_gated_linear(
    at::Tensor* x, at::Tensor* weight, const podium_low_rank* parts, size_t count, at::Tensor** output) {
  return podium_guarded([=] {
    TORCH_CHECK(weight->size(0) % 2 == 0, "a gate and a map of ", weight->size(0), " outputs: expected an even number");
    check(*x, *weight, nullptr, parts, count);
    if (!has_few_rows(*x)) {
      const auto n = weight->size(0) / 2;
      const auto product = many_rows(*x, *weight, nullptr, parts, count);
      *output = new at::Tensor(podium_gate(product.narrow(1, 0, n), product.narrow(1, n, n)));
      return;
    }
    const auto low = podium_low_rank_parts(*x, parts, count);
    *output = new at::Tensor(
        x->scalar_type() == at::kFloat ? few_gated_rows<float>(*x, *weight, low)
                                       : few_gated_rows<at::BFloat16>(*x, *weight, low));
  });
}
