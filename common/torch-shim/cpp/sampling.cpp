// Selection among the probabilities of rows, on a CPU.
#include "shim.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

namespace {

using Candidate = std::pair<float, int64_t>;

// Returns the lowest of the largest logits that are needed so that their mass is at least `least`. Halves the candidates
// around a pivot until one remains, which takes a multiple of their number on average.
float nucleus(std::vector<Candidate>& candidates, int64_t least) {
  const auto above = [](const Candidate& one, const Candidate& other) { return one.first > other.first; };
  auto first = candidates.begin();
  auto end = candidates.end();
  while (end - first > 1) {
    const auto middle = first + (end - first) / 2;
    std::nth_element(first, middle, end, above);
    int64_t upper = 0;
    for (auto candidate = first; candidate != middle; ++candidate) {
      upper += candidate->second;
    }
    if (upper >= least) {
      end = middle;
    } else {
      least -= upper;
      first = middle;
    }
  }
  return first->first;
}

}  // namespace

char* podium_torch_nucleus(at::Tensor* logits, at::Tensor* mass, int64_t least, at::Tensor** threshold) {
  return podium_guarded([=] {
    TORCH_CHECK(
        logits->is_cpu() && logits->dim() == 2 && logits->numel() > 0 && logits->sizes() == mass->sizes(), "logits of ",
        logits->sizes(), " and masses of ", mass->sizes());
    const auto numbers = logits->contiguous(), masses = mass->contiguous();
    const auto rows = numbers.size(0), n = numbers.size(1);
    auto result = at::empty({rows, 1}, numbers.options());
    const auto* number = numbers.const_data_ptr<float>();
    const auto* weight = masses.const_data_ptr<int64_t>();
    auto* found = result.data_ptr<float>();
    at::parallel_for(0, rows, 1, [=](int64_t first, int64_t end) {
      std::vector<Candidate> candidates(static_cast<size_t>(n));
      for (int64_t row = first; row < end; ++row) {
        for (int64_t column = 0; column < n; ++column) {
          const auto logit = number[row * n + column];
          // A NaN has no order.
          candidates[column] = {std::isnan(logit) ? -INFINITY : logit, weight[row * n + column]};
        }
        found[row] = nucleus(candidates, least);
      }
    });
    *threshold = new at::Tensor(result);
  });
}
