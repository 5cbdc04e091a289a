// Attention of one new token of each completion to the keys of its prompt and to its own, on a CPU.
//
// Keys are stored with positions adjacent, values with the numbers of a head adjacent, so that both products run over
// adjacent numbers. All queries of a prompt that read the same keys are computed together. Products, sums and the softmax
// are float32. Each number is summed in the order of positions.
#include "shim.h"

#include <limits>
#include <vector>

#include <ATen/ops/empty.h>

#include "vectors.h"

namespace {

// The size of a head and numbers of positions are multiples of the widest vector.
constexpr int64_t kWidest = 16;

// Keys whose scores are in memory at once.
constexpr int64_t kKeys = 512;
// Queries that are computed at once.
constexpr int64_t kQueries = 64;
// Rows and vectors of a product that are in registers.
constexpr int64_t kTileRows = 8;
constexpr int64_t kTileVectors = 2;

// Sets kRows rows of c, `ldc` apart, to the products of rows of a with the first kVectors vectors of each row of b, or adds
// them.
template <int64_t kLanes, int64_t kRows, int64_t kVectors, typename T>
PODIUM_INLINE void tile(
    const float* a, int64_t lda, const T* b, int64_t ldb, int64_t depth, float* c, int64_t ldc, bool add) {
  Vector<kLanes> sums[kRows][kVectors];
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t vector = 0; vector < kVectors; ++vector) {
      sums[row][vector] = add ? Vector<kLanes>::load(c + row * ldc + vector * kLanes) : Vector<kLanes>{};
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector<kLanes> of_b[kVectors];
    for (int64_t vector = 0; vector < kVectors; ++vector) {
      of_b[vector] = Vector<kLanes>::load(b + k * ldb + vector * kLanes);
    }
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t vector = 0; vector < kVectors; ++vector) {
        sums[row][vector].floats += a[row * lda + k] * of_b[vector].floats;
      }
    }
  }
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t vector = 0; vector < kVectors; ++vector) {
      std::memcpy(c + row * ldc + vector * kLanes, &sums[row][vector].floats, sizeof(Vector<kLanes>));
    }
  }
}

template <int64_t kLanes, int64_t kVectors, typename T>
PODIUM_INLINE void columns(
    const float* a, int64_t lda, int64_t rows, const T* b, int64_t ldb, int64_t depth, float* c, int64_t ldc,
    bool add) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) {
    tile<kLanes, kTileRows, kVectors>(a + row * lda, lda, b, ldb, depth, c + row * ldc, ldc, add);
  }
  // The queries of one completion are few.
  for (; row + 2 <= rows; row += 2) {
    tile<kLanes, 2, kVectors>(a + row * lda, lda, b, ldb, depth, c + row * ldc, ldc, add);
  }
  if (row < rows) {
    tile<kLanes, 1, kVectors>(a + row * lda, lda, b, ldb, depth, c + row * ldc, ldc, add);
  }
}

// c = a b, or c += a b. a: [rows, depth]; b: [depth, n] with n a multiple of kLanes; c: [rows, n].
template <int64_t kLanes, typename T>
PODIUM_INLINE void product(
    const float* a, int64_t lda, int64_t rows, const T* b, int64_t ldb, int64_t depth, float* c, int64_t ldc, int64_t n,
    bool add) {
  int64_t column = 0;
  for (; column + kTileVectors * kLanes <= n; column += kTileVectors * kLanes) {
    columns<kLanes, kTileVectors>(a, lda, rows, b + column, ldb, depth, c + column, ldc, add);
  }
  for (; column < n; column += kLanes) {
    columns<kLanes, 1>(a, lda, rows, b + column, ldb, depth, c + column, ldc, add);
  }
}

// Keys [D, width] and values [width, D], of which the first `count` exist.
template <typename T>
struct Stored {
  const T* keys;
  const T* values;
  int64_t width;
  int64_t count;
};

// The softmax of rows so far: their largest scores, sums of exponentials and weighted sums of values [rows, D].
struct State {
  float* largest;
  float* sums;
  float* outputs;
};

// Continues the softmax of `rows` queries [rows, D] by stored keys. `scores`: memory for [rows, kKeys].
template <int64_t kLanes, typename T>
PODIUM_INLINE void attend(
    const float* query, int64_t rows, int64_t d, const Stored<T>& stored, const State& state, float* scores) {
  for (int64_t first = 0; first < stored.count; first += kKeys) {
    const int64_t keys = std::min(kKeys, stored.count - first);
    const int64_t padded = (keys + kLanes - 1) / kLanes * kLanes;
    product<kLanes>(query, d, rows, stored.keys + first, stored.width, d, scores, kKeys, padded, false);
    for (int64_t row = 0; row < rows; ++row) {
      float* of_row = scores + row * kKeys;
      float largest = state.largest[row];
      for (int64_t key = 0; key < keys; ++key) {
        largest = of_row[key] > largest ? of_row[key] : largest;
      }
      float factor;
      podium_exponentials(&state.largest[row], 1, largest, &factor);
      state.largest[row] = largest;
      state.sums[row] = state.sums[row] * factor + podium_exponentials(of_row, keys, largest, of_row);
      for (int64_t i = 0; i < d; ++i) {
        state.outputs[row * d + i] *= factor;
      }
    }
    product<kLanes>(scores, kKeys, rows, stored.values + first * d, d, keys, state.outputs, d, d, true);
  }
}

// One prompt and one key head: the queries of `group` completions, `repeats` each.
template <typename T>
struct Group {
  const T* query;
  int64_t query_stride;
  const T* key;
  const T* value;
  int64_t key_stride;
  int64_t value_stride;
  Stored<T> prompt;
  T* own_keys;
  T* own_values;
  int64_t capacity;
  int64_t length;
  int64_t group;
  int64_t repeats;
  int64_t d;
  float scale;
  T* output;
  int64_t output_stride;
};

// The memory of a thread.
struct Scratch {
  Scratch(int64_t rows, int64_t d)
      : query(rows * d), outputs(rows * d), scores(rows * kKeys), largest(rows), sums(rows) {}

  std::vector<float> query, outputs, scores, largest, sums;
};

template <int64_t kLanes, typename T>
PODIUM_INLINE void attend_group(const Group<T>& of, Scratch& scratch) {
  const int64_t d = of.d;
  // Completions that are computed at once.
  const int64_t at_once = std::max<int64_t>(1, kQueries / of.repeats);
  for (int64_t first = 0; first < of.group; first += at_once) {
    const int64_t count = std::min(at_once, of.group - first);
    const int64_t rows = count * of.repeats;
    float* query = scratch.query.data();
    for (int64_t row = 0; row < rows; ++row) {
      const T* in = of.query + (first + row / of.repeats) * of.query_stride + row % of.repeats * d;
      for (int64_t i = 0; i < d; ++i) {
        query[row * d + i] = widen(in[i]) * of.scale;
        scratch.outputs[row * d + i] = 0.0f;
      }
      scratch.largest[row] = std::numeric_limits<float>::lowest();
      scratch.sums[row] = 0.0f;
    }
    const State all{scratch.largest.data(), scratch.sums.data(), scratch.outputs.data()};
    attend<kLanes>(query, rows, d, of.prompt, all, scratch.scores.data());
    for (int64_t member = 0; member < count; ++member) {
      const int64_t completion = first + member;
      T* keys = of.own_keys + completion * d * of.capacity;
      T* values = of.own_values + completion * of.capacity * d;
      for (int64_t i = 0; i < d; ++i) {
        keys[i * of.capacity + of.length - 1] = of.key[completion * of.key_stride + i];
        values[(of.length - 1) * d + i] = of.value[completion * of.value_stride + i];
      }
      const int64_t row = member * of.repeats;
      const State own{all.largest + row, all.sums + row, all.outputs + row * d};
      attend<kLanes>(
          query + row * d, of.repeats, d, Stored<T>{keys, values, of.capacity, of.length}, own, scratch.scores.data());
    }
    for (int64_t row = 0; row < rows; ++row) {
      T* out = of.output + (first + row / of.repeats) * of.output_stride + row % of.repeats * d;
      const float factor = 1.0f / scratch.sums[row];
      for (int64_t i = 0; i < d; ++i) {
        out[i] = narrow<T>(scratch.outputs[row * d + i] * factor);
      }
    }
  }
}

PODIUM_FOR_WIDTHS(attend_group_of, attend_group, (const Group<T>& group, Scratch& scratch), (group, scratch))

template <typename T>
at::Tensor cached_attention(const podium_cache& cache, const podium_new_rows& rows) {
  const auto attend = attend_group_of<T>();
  const auto &prompt_key = *cache.prompt_key, &own_key = *cache.own_key;
  const auto prompts = prompt_key.size(0), heads = prompt_key.size(1), d = prompt_key.size(2),
             width = prompt_key.size(3), group = own_key.size(2), capacity = own_key.size(4),
             repeats = rows.query->size(1) / heads;
  auto output = at::empty({prompts * group, repeats * heads * d}, rows.query->options());
  at::parallel_for(0, prompts * heads, 1, [&](int64_t first, int64_t end) {
    Scratch scratch(std::max(kQueries, repeats), d);
    for (int64_t index = first; index < end; ++index) {
      const auto prompt = index / heads, head = index % heads, row = prompt * group;
      const auto of_query = [&](const auto* data, int64_t stride) { return data + row * stride + head * repeats * d; };
      const auto of_key = [&](const at::Tensor& x) { return x.const_data_ptr<T>() + row * x.stride(0) + head * d; };
      attend(
          Group<T>{
              of_query(rows.query->const_data_ptr<T>(), rows.query->stride(0)),
              rows.query->stride(0),
              of_key(*rows.key),
              of_key(*rows.value),
              rows.key->stride(0),
              rows.value->stride(0),
              Stored<T>{
                  prompt_key.const_data_ptr<T>() + index * d * width,
                  cache.prompt_value->const_data_ptr<T>() + index * width * d, width, cache.prompt_lengths[prompt]},
              own_key.data_ptr<T>() + index * group * d * capacity,
              cache.own_value->data_ptr<T>() + index * group * d * capacity,
              capacity,
              cache.length,
              group,
              repeats,
              d,
              static_cast<float>(cache.scale),
              output.data_ptr<T>() + row * output.size(1) + head * repeats * d,
              output.size(1)},
          scratch);
    }
  });
  return output;
}

void check(const podium_cache& cache, const podium_new_rows& rows) {
  const auto &prompt_key = *cache.prompt_key, &own_key = *cache.own_key;
  const auto kind = rows.query->scalar_type();
  for (const auto* stored : {cache.prompt_key, cache.prompt_value, cache.own_key, cache.own_value}) {
    TORCH_CHECK(
        stored->is_cpu() && stored->is_contiguous() && stored->scalar_type() == kind, "a cache of ", stored->sizes(),
        " in ", stored->scalar_type(), ": expected contiguous numbers in ", kind, " on a CPU");
  }
  TORCH_CHECK(
      own_key.dim() == 5 && prompt_key.dim() == 4, "keys of ", prompt_key.sizes(), " and ", own_key.sizes(),
      ": expected [prompts, key heads, D, positions] and [prompts, key heads, completions, D, positions]");
  const auto prompts = own_key.size(0), heads = own_key.size(1), group = own_key.size(2), d = own_key.size(3),
             capacity = own_key.size(4), width = prompt_key.size(3);
  TORCH_CHECK(
      heads > 0 && d > 0 && d % kWidest == 0 && width % kWidest == 0 && capacity % kWidest == 0,
      "keys of ", prompt_key.sizes(), " and ", own_key.sizes(), ": expected sizes of heads and numbers of positions in "
      "multiples of ", kWidest);
  TORCH_CHECK(
      prompt_key.sizes() == at::IntArrayRef({prompts, heads, d, width}) &&
          cache.prompt_value->sizes() == at::IntArrayRef({prompts, heads, width, d}) &&
          cache.own_value->sizes() == at::IntArrayRef({prompts, heads, group, capacity, d}),
      "keys of ", prompt_key.sizes(), " and ", own_key.sizes(), ", values of ", cache.prompt_value->sizes(), " and ",
      cache.own_value->sizes(), ": expected the same prompts, heads and positions");
  TORCH_CHECK(
      cache.length >= 1 && cache.length <= capacity, "length ", cache.length, ": expected 1 to ", capacity);
  for (const auto* rows_of : {rows.query, rows.key, rows.value}) {
    const bool counted = rows_of->dim() == 3 && rows_of->size(0) == prompts * group && rows_of->size(2) == d &&
        (rows_of == rows.query ? rows_of->size(1) > 0 && rows_of->size(1) % heads == 0 : rows_of->size(1) == heads);
    TORCH_CHECK(
        counted && rows_of->stride(2) == 1 && rows_of->stride(1) == d && rows_of->scalar_type() == kind &&
            rows_of->is_cpu(),
        "rows of ", rows_of->sizes(), " with strides ", rows_of->strides(), " in ", rows_of->scalar_type(),
        " for a cache of ", own_key.sizes(), ": expected [completions, heads, D] with adjacent heads in ", kind,
        " on a CPU");
  }
}

}  // namespace

char* podium_torch_cached_attention(podium_cache cache, podium_new_rows rows, at::Tensor** output) {
  return podium_guarded([=] {
    check_type(*rows.query);
    check(cache, rows);
    *output = new at::Tensor(
        rows.query->scalar_type() == at::kFloat ? cached_attention<float>(cache, rows)
                                                : cached_attention<at::BFloat16>(cache, rows));
  });
}
