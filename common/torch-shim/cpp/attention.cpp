// Attention of prompts and of their completions, with gradients.
//
// A completion attends to its prompt and to itself. Both parts are computed without materialised scores and merged by
// the logarithms of their sums of exponentials; the backward pass of each part receives the merged output and logarithm,
// from which it recomputes the weights of the whole attention.
#include "shim.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "flash.h"

namespace {

// The parts of an attention over rows that hold all prompts and then all completions.
struct Parts {
  // Queries of all prompts.
  int64_t prompt_queries = 0;
  std::vector<podium_run> prompts;
  std::vector<podium_run> completions;
  // The queries of all completions of a prompt, and the keys of the prompt.
  std::vector<podium_run> shared;
};

// Appends a sequence; adjacent sequences of equal lengths are one run.
void append(std::vector<podium_run>& runs, int64_t first_query, int64_t first_key, int64_t queries, int64_t keys) {
  if (queries == 0) {
    return;
  }
  if (!runs.empty()) {
    auto& last = runs.back();
    if (last.queries == queries && last.keys == keys && last.first_query + last.count * queries == first_query &&
        last.first_key + last.count * keys == first_key) {
      last.count += 1;
      return;
    }
  }
  runs.push_back({first_query, first_key, 1, queries, keys});
}

// `last_queries`: each prompt has one query, its last row.
Parts parts(at::IntArrayRef prompts, at::IntArrayRef completions, bool last_queries) {
  Parts parts;
  int64_t key = 0;
  for (const auto length : prompts) {
    const auto queries = last_queries ? 1 : length;
    append(parts.prompts, parts.prompt_queries, key, queries, length);
    parts.prompt_queries += queries;
    key += length;
  }
  const auto group = static_cast<int64_t>(completions.size() / prompts.size());
  int64_t prompt = 0;
  int64_t query = parts.prompt_queries;
  for (size_t index = 0; index < prompts.size(); ++index) {
    const auto first = query;
    for (const auto length : completions.slice(index * group, group)) {
      append(parts.completions, query, key, length, length);
      query += length;
      key += length;
    }
    append(parts.shared, first, prompt, query - first, prompts[index]);
    prompt += prompts[index];
  }
  return parts;
}

class Attention : public torch::autograd::Function<Attention> {
 public:
  static at::Tensor forward(
      torch::autograd::AutogradContext* context, const at::Tensor& query, const at::Tensor& key,
      const at::Tensor& value, std::vector<int64_t> prompts, std::vector<int64_t> completions, bool last_queries,
      double scale) {
    const podium_attention attention{query, key, value, scale};
    const auto parts = ::parts(prompts, completions, last_queries);
    const auto rows = query.size(0);
    auto output = at::empty_like(query, at::MemoryFormat::Contiguous);
    auto lse = at::empty({rows, query.size(1)}, query.options().dtype(at::toOpMathType(query.scalar_type())));
    const bool finite = podium_finite(attention);
    // The last row of a prompt attends to all its keys.
    podium_flash(attention, parts.prompts, /*causal=*/!last_queries, finite, output, lse);
    podium_flash(attention, parts.completions, /*causal=*/true, finite, output, lse);
    if (!parts.shared.empty()) {
      const auto shared_output = at::empty_like(output);
      const auto shared_lse = at::empty_like(lse);
      podium_flash(attention, parts.shared, /*causal=*/false, finite, shared_output, shared_lse);
      const auto completed = [&](const at::Tensor& all) {
        return all.narrow(0, parts.prompt_queries, rows - parts.prompt_queries);
      };
      auto own = completed(output), own_lse = completed(lse);
      const auto other = completed(shared_output), other_lse = completed(shared_lse);
      const auto weight = at::sigmoid(other_lse.sub(own_lse)).unsqueeze(-1).to(query.scalar_type());
      own.lerp_(other, weight);
      own_lse.copy_(at::logaddexp(own_lse, other_lse));
    }
    context->save_for_backward({query, key, value, output, lse});
    context->saved_data["prompts"] = std::move(prompts);
    context->saved_data["completions"] = std::move(completions);
    context->saved_data["last_queries"] = last_queries;
    context->saved_data["scale"] = scale;
    return output;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, torch::autograd::variable_list outputs) {
    const auto saved = context->get_saved_variables();
    const auto& query = saved[0];
    const auto& key = saved[1];
    const auto& value = saved[2];
    const podium_attention attention{query, key, value, context->saved_data["scale"].toDouble()};
    const bool last_queries = context->saved_data["last_queries"].toBool();
    const auto parts = ::parts(
        context->saved_data["prompts"].toIntVector(), context->saved_data["completions"].toIntVector(), last_queries);
    const auto sum = [](const at::Tensor& like) {
      return at::zeros(like.sizes(), like.options().dtype(at::toOpMathType(like.scalar_type())));
    };
    const podium_gradients gradients{sum(query), sum(key), sum(value)};
    const auto gradient = outputs[0].contiguous();
    const auto add = [&](const std::vector<podium_run>& runs, bool causal) {
      podium_flash_backward(attention, runs, causal, saved[3], saved[4], gradient, gradients);
    };
    add(parts.prompts, !last_queries);
    add(parts.completions, true);
    add(parts.shared, false);
    const auto kind = query.scalar_type();
    return {gradients.query.to(kind), gradients.key.to(kind), gradients.value.to(kind), {}, {}, {}, {}};
  }
};

}  // namespace

char* podium_torch_attention(
    at::Tensor* query, at::Tensor* key, at::Tensor* value, const int64_t* prompts, size_t prompt_count,
    const int64_t* completions, size_t completion_count, bool last_queries, double scale,
    at::Tensor** output) {
  return podium_guarded([=] {
    TORCH_CHECK(
        query->dim() == 3 && key->dim() == 3 && query->size(1) % key->size(1) == 0, query->size(1),
        " query heads for ", key->size(1), " key heads: expected a multiple");
    *output = new at::Tensor(Attention::apply(
        *query, *key, *value, std::vector<int64_t>(prompts, prompts + prompt_count),
        std::vector<int64_t>(completions, completions + completion_count), last_queries, scale));
  });
}
