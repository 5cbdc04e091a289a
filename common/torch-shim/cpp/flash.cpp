#include "flash.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

namespace {

// The rows of `count` sequences of `length`, [rows, heads, ...] to [count, heads, length, ...], a view.
at::Tensor sequences(const at::Tensor& rows, int64_t first, int64_t count, int64_t length) {
  auto sizes = rows.sizes().vec();
  sizes[0] = length;
  sizes.insert(sizes.begin(), count);
  return rows.narrow(0, first, count * length).view(sizes).transpose(1, 2);
}

// Of heads of queries in dimension 1, those that are number `member` of the queries of their key head.
at::Tensor heads(const at::Tensor& queries, int64_t member, int64_t queries_per_key) {
  return queries.slice(1, member, std::nullopt, queries_per_key);
}

// Makes the outputs of queries that are not finite NaN, and all outputs of sequences with keys that are not: the kernel of a
// CPU ignores scores that are NaN. `output` and `query`: [count, heads, queries, D]; `key`: [count, key heads, keys, D].
void restore_nans(const at::Tensor& output, const at::Tensor& query, const at::Tensor& key) {
  const auto broken = [](const at::Tensor& heads) { return heads.isfinite().logical_not().any(-1, /*keepdim=*/true); };
  const auto repeats = query.size(1) / key.size(1);
  output.masked_fill_(broken(query), NAN);
  output.masked_fill_(broken(key).any(2, /*keepdim=*/true).repeat_interleave(repeats, 1), NAN);
}

// The sequences of runs for the kernels of a GPU, which compute all of them at once.
struct Ragged {
  at::Tensor query_ends;
  at::Tensor key_ends;
  int64_t longest_query = 0;
  int64_t longest_key = 0;
  int64_t first_query = 0;
  int64_t queries = 0;
  int64_t first_key = 0;
  int64_t keys = 0;

  at::Tensor of_queries(const at::Tensor& rows) const { return rows.narrow(0, first_query, queries); }
  at::Tensor of_keys(const at::Tensor& rows) const { return rows.narrow(0, first_key, keys); }
};

Ragged ragged(const std::vector<podium_run>& runs, at::Device device) {
  Ragged all;
  all.first_query = runs.front().first_query;
  all.first_key = runs.front().first_key;
  std::vector<int32_t> query_ends{0}, key_ends{0};
  const auto append = [&](int64_t queries, int64_t keys) {
    all.queries += queries;
    all.keys += keys;
    query_ends.push_back(static_cast<int32_t>(all.queries));
    key_ends.push_back(static_cast<int32_t>(all.keys));
    all.longest_query = std::max(all.longest_query, queries);
    all.longest_key = std::max(all.longest_key, keys);
  };
  for (const auto& run : runs) {
    // Keys that no query attends to: a sequence without queries.
    const auto unused = run.first_key - all.first_key - all.keys;
    if (unused > 0) {
      append(0, unused);
    }
    for (int64_t sequence = 0; sequence < run.count; ++sequence) {
      append(run.queries, run.keys);
    }
  }
  all.query_ends = at::tensor(query_ends, at::kInt).to(device);
  all.key_ends = at::tensor(key_ends, at::kInt).to(device);
  return all;
}

void flash_on_gpu(
    const podium_attention& attention, const std::vector<podium_run>& runs, bool causal, const at::Tensor& output,
    const at::Tensor& lse) {
  const auto all = ragged(runs, attention.query.device());
  const auto [part, part_lse, seed, unused, mask] = at::_flash_attention_forward(
      all.of_queries(attention.query), all.of_keys(attention.key), all.of_keys(attention.value), all.query_ends,
      all.key_ends, all.longest_query, all.longest_key, /*dropout_p=*/0.0, causal, /*return_debug_mask=*/false,
      attention.scale);
  TORCH_CHECK(
      part_lse.dim() == 2 && part_lse.size(0) == lse.size(1) && part_lse.size(1) == all.queries,
      "flash attention returned sums of ", part_lse.sizes(), ": expected [", lse.size(1), ", ", all.queries, "]");
  all.of_queries(output).copy_(part);
  all.of_queries(lse).copy_(part_lse.t());
}

void flash_backward_on_gpu(
    const podium_attention& attention, const std::vector<podium_run>& runs, bool causal, const at::Tensor& output,
    const at::Tensor& lse, const at::Tensor& gradient, const podium_gradients& gradients) {
  const auto all = ragged(runs, attention.query.device());
  // Without dropout the state of random numbers is not read.
  const auto seed = at::zeros({2}, attention.query.options().dtype(at::kUInt64));
  const auto unused = at::empty({}, attention.query.options().dtype(at::kUInt64));
  const auto [of_query, of_key, of_value] = at::_flash_attention_backward(
      all.of_queries(gradient), all.of_queries(attention.query), all.of_keys(attention.key),
      all.of_keys(attention.value), all.of_queries(output), all.of_queries(lse).t().contiguous(), all.query_ends,
      all.key_ends, all.longest_query, all.longest_key, /*dropout_p=*/0.0, causal, seed, unused, attention.scale);
  all.of_queries(gradients.query).add_(of_query);
  all.of_keys(gradients.key).add_(of_key);
  all.of_keys(gradients.value).add_(of_value);
}

}  // namespace

bool podium_finite(const podium_attention& attention) {
  if (!attention.query.is_cpu()) {
    return true;
  }
  // A sum is finite only if all numbers are.
  const auto sum = attention.query.sum(at::kFloat).add(attention.key.sum(at::kFloat));
  return std::isfinite(sum.item<float>());
}

void podium_flash(
    const podium_attention& attention, const std::vector<podium_run>& runs, bool causal, bool finite,
    const at::Tensor& output, const at::Tensor& lse) {
  if (runs.empty()) {
    return;
  }
  if (!attention.query.is_cpu()) {
    return flash_on_gpu(attention, runs, causal, output, lse);
  }
  const auto repeats = attention.query.size(1) / attention.key.size(1);
  for (const auto& run : runs) {
    const auto query = sequences(attention.query, run.first_query, run.count, run.queries);
    const auto key = sequences(attention.key, run.first_key, run.count, run.keys);
    const auto value = sequences(attention.value, run.first_key, run.count, run.keys);
    const auto own_output = sequences(output, run.first_query, run.count, run.queries);
    const auto own_lse = sequences(lse, run.first_query, run.count, run.queries);
    for (int64_t member = 0; member < repeats; ++member) {
      const auto [part, part_lse] = at::_scaled_dot_product_flash_attention_for_cpu(
          heads(query, member, repeats), key, value, /*dropout_p=*/0.0, causal, /*attn_mask=*/{}, attention.scale);
      heads(own_output, member, repeats).copy_(part);
      heads(own_lse, member, repeats).copy_(part_lse);
    }
    if (!finite) {
      restore_nans(own_output, query, key);
    }
  }
}

void podium_flash_backward(
    const podium_attention& attention, const std::vector<podium_run>& runs, bool causal, const at::Tensor& output,
    const at::Tensor& lse, const at::Tensor& gradient, const podium_gradients& gradients) {
  if (runs.empty()) {
    return;
  }
  if (!attention.query.is_cpu()) {
    return flash_backward_on_gpu(attention, runs, causal, output, lse, gradient, gradients);
  }
  const auto repeats = attention.query.size(1) / attention.key.size(1);
  for (const auto& run : runs) {
    const auto of_queries = [&](const at::Tensor& rows) {
      return sequences(rows, run.first_query, run.count, run.queries);
    };
    const auto of_keys = [&](const at::Tensor& rows) { return sequences(rows, run.first_key, run.count, run.keys); };
    const auto query = of_queries(attention.query), own_output = of_queries(output), own_lse = of_queries(lse),
               own_gradient = of_queries(gradient), query_sum = of_queries(gradients.query);
    const auto key = of_keys(attention.key), value = of_keys(attention.value), key_sum = of_keys(gradients.key),
               value_sum = of_keys(gradients.value);
    for (int64_t member = 0; member < repeats; ++member) {
      const auto of = [&](const at::Tensor& queries) { return heads(queries, member, repeats); };
      const auto [of_query, of_key, of_value] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          of(own_gradient), of(query), key, value, of(own_output), of(own_lse), /*dropout_p=*/0.0, causal,
          /*attn_mask=*/{}, attention.scale);
      of(query_sum).add_(of_query);
      key_sum.add_(of_key);
      value_sum.add_(of_value);
    }
  }
}
