// Both products of an adapter's low-rank part. Products and sums are float32.
#include "low_rank.h"

#include <type_traits>

#include "vectors.h"

namespace {

// Rows of x and of a whose products are in registers.
constexpr int64_t kTileRows = 2;
constexpr int64_t kTileRanks = 4;
// Outputs whose sums are in registers.
constexpr int64_t kTileOutputs = 4;

// kRows rows of x times kRanks rows of a. Numbers after the last whole vector are added one by one. Each sum has sixteen
// parts in a fixed order, as in `sum`.
template <int64_t kRows, int64_t kRanks, typename T, typename A>
PODIUM_INLINE void dots(
    const T* x, int64_t ldx, const A* a, int64_t inputs, float scale, float* low, int64_t padded) {
  Vector<kParts> sums[kRows][kRanks] = {};
  int64_t input = 0;
  for (; input + kParts <= inputs; input += kParts) {
    Vector<kParts> of_x[kRows];
    for (int64_t row = 0; row < kRows; ++row) {
      of_x[row] = Vector<kParts>::load(x + row * ldx + input);
    }
    for (int64_t rank = 0; rank < kRanks; ++rank) {
      const auto of_a = Vector<kParts>::load(a + rank * inputs + input);
      for (int64_t row = 0; row < kRows; ++row) {
        sums[row][rank].floats += of_x[row].floats * of_a.floats;
      }
    }
  }
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t rank = 0; rank < kRanks; ++rank) {
      float parts[kParts];
      std::memcpy(parts, &sums[row][rank].floats, sizeof(parts));
      for (int64_t width = kParts / 2; width > 0; width /= 2) {
        for (int64_t part = 0; part < width; ++part) {
          parts[part] += parts[part + width];
        }
      }
      float rest = 0.0f;
      for (int64_t last = input; last < inputs; ++last) {
        rest += widen(x[row * ldx + last]) * widen(a[rank * inputs + last]);
      }
      low[rank * padded + row] = (parts[0] + rest) * scale;
    }
  }
}

template <int64_t kRows, typename T, typename A>
PODIUM_INLINE void dots_of_ranks(
    const T* x, int64_t ldx, const A* a, int64_t rank, int64_t inputs, float scale, float* low, int64_t padded) {
  int64_t first = 0;
  for (; first + kTileRanks <= rank; first += kTileRanks) {
    dots<kRows, kTileRanks>(x, ldx, a + first * inputs, inputs, scale, low + first * padded, padded);
  }
  for (; first < rank; ++first) {
    dots<kRows, 1>(x, ldx, a + first * inputs, inputs, scale, low + first * padded, padded);
  }
}

// The types of inputs and of an adapter.
template <typename InputType, typename AdapterType>
struct Types {
  using Input = InputType;
  using Adapter = AdapterType;
};

// low [rank, padded rows] = scale · a xᵀ for the rows `first` to `end`.
template <int64_t, typename T>
PODIUM_INLINE void reduce(
    const typename T::Input* x, int64_t ldx, const typename T::Adapter* a, int64_t rank, int64_t inputs, float scale,
    float* low, int64_t padded, int64_t first, int64_t end) {
  int64_t row = first;
  for (; row + kTileRows <= end; row += kTileRows) {
    dots_of_ranks<kTileRows>(x + row * ldx, ldx, a, rank, inputs, scale, low + row, padded);
  }
  if (row < end) {
    dots_of_ranks<1>(x + row * ldx, ldx, a, rank, inputs, scale, low + row, padded);
  }
}

// Adds b low to the block, for kOutputs rows of b and one vector of rows of x.
template <int64_t kLanes, int64_t kOutputs, typename A>
PODIUM_INLINE void expand_tile(const A* b, int64_t rank, const float* low, float* block, int64_t padded) {
  Vector<kLanes> sums[kOutputs];
  for (int64_t output = 0; output < kOutputs; ++output) {
    sums[output] = Vector<kLanes>::load(block + output * padded);
  }
  for (int64_t r = 0; r < rank; ++r) {
    const auto of_low = Vector<kLanes>::load(low + r * padded);
    for (int64_t output = 0; output < kOutputs; ++output) {
      sums[output].floats += widen(b[output * rank + r]) * of_low.floats;
    }
  }
  for (int64_t output = 0; output < kOutputs; ++output) {
    std::memcpy(block + output * padded, &sums[output].floats, sizeof(sums[output].floats));
  }
}

template <int64_t kLanes, typename A>
PODIUM_INLINE void expand(
    const A* b, int64_t outputs, int64_t rank, const float* low, float* block, int64_t padded) {
  for (int64_t row = 0; row < padded; row += kLanes) {
    int64_t output = 0;
    for (; output + kTileOutputs <= outputs; output += kTileOutputs) {
      expand_tile<kLanes, kTileOutputs>(b + output * rank, rank, low + row, block + output * padded + row, padded);
    }
    for (; output < outputs; ++output) {
      expand_tile<kLanes, 1>(b + output * rank, rank, low + row, block + output * padded + row, padded);
    }
  }
}

PODIUM_FOR_WIDTHS(
    reduce_of, reduce,
    (const typename T::Input* x, int64_t ldx, const typename T::Adapter* a, int64_t rank, int64_t inputs, float scale,
     float* low, int64_t padded, int64_t first, int64_t end),
    (x, ldx, a, rank, inputs, scale, low, padded, first, end))

PODIUM_FOR_WIDTHS(
    expand_of, expand,
    (const T* b, int64_t outputs, int64_t rank, const float* low, float* block, int64_t padded),
    (b, outputs, rank, low, block, padded))

template <typename T, typename A>
void reduce_in_parallel(const at::Tensor& x, const at::Tensor& a, float scale, float* low, int64_t padded) {
  const auto rank = a.size(0), inputs = a.size(1);
  const auto reduce = reduce_of<Types<T, A>>();
  in_parallel(x.size(0), rank * inputs / kParts, kCheap, [&](int64_t first, int64_t end) {
    reduce(x.const_data_ptr<T>(), x.stride(0), a.const_data_ptr<A>(), rank, inputs, scale, low, padded, first, end);
  });
}

// Calls `with` with a pointer of the tensor's type, float32 or bfloat16, that points to nothing.
template <typename With>
void for_type(const at::Tensor& x, const With& with) {
  if (x.scalar_type() == at::kFloat) {
    with(static_cast<const float*>(nullptr));
  } else {
    with(static_cast<const at::BFloat16*>(nullptr));
  }
}

template <typename Pointer>
using Pointed = std::remove_const_t<std::remove_pointer_t<Pointer>>;

}  // namespace

std::vector<LowRankPart> podium_low_rank_parts(const at::Tensor& x, const podium_low_rank* parts, size_t count) {
  std::vector<LowRankPart> found;
  const auto padded = padded_rows(x.size(0));
  for (size_t index = 0; index < count; ++index) {
    const auto a = parts[index].a->contiguous(), b = parts[index].b->contiguous();
    LowRankPart part{b, std::vector<float>(a.size(0) * padded), parts[index].first};
    const auto scale = static_cast<float>(parts[index].scale);
    for_type(x, [&](auto of_x) {
      for_type(a, [&](auto of_a) {
        reduce_in_parallel<Pointed<decltype(of_x)>, Pointed<decltype(of_a)>>(x, a, scale, part.low.data(), padded);
      });
    });
    found.push_back(std::move(part));
  }
  return found;
}

void podium_add_low_rank(
    const std::vector<LowRankPart>& parts, float* block, int64_t padded, int64_t first, int64_t end) {
  for (const auto& part : parts) {
    const auto rank = part.b.size(1);
    const auto from = std::max(first, part.first), to = std::min(end, part.first + part.b.size(0));
    if (from < to) {
      for_type(part.b, [&](auto of_b) {
        using B = Pointed<decltype(of_b)>;
        expand_of<B>()(
            part.b.const_data_ptr<B>() + (from - part.first) * rank, to - from, rank, part.low.data(),
            block + (from - first) * padded, padded);
      });
    }
  }
}
