#include "shim.h"

#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

char* podium_torch_take_gradient(at::Tensor* parameter, at::Tensor** gradient) {
  return podium_guarded([=] {
    *gradient = nullptr;
    auto& own = parameter->mutable_grad();
    if (own.defined()) {
      *gradient = new at::Tensor(std::move(own));
      own = at::Tensor();
    }
  });
}

char* podium_torch_fused_adamw(
    at::Tensor** weights, at::Tensor** gradients, at::Tensor** first_moments, at::Tensor** second_moments,
    size_t count, int64_t step, double learning_rate, double beta1, double beta2, double weight_decay, double epsilon) {
  return podium_guarded([=] {
    if (count == 0) {
      return;
    }
    const at::NoGradGuard no_grad;
    const auto list = [count](at::Tensor** tensors) {
      std::vector<at::Tensor> list;
      list.reserve(count);
      for (size_t index = 0; index < count; ++index) {
        list.push_back(*tensors[index]);
      }
      return list;
    };
    const auto own = list(weights);
    const std::vector<at::Tensor> steps(
        count, at::full({}, static_cast<double>(step), at::device(own[0].device()).dtype(at::kFloat)));
    at::_fused_adamw_(
        own, list(gradients), list(first_moments), list(second_moments), {}, steps, learning_rate, beta1, beta2,
        weight_decay, epsilon, /*amsgrad=*/false, /*maximize=*/false);
  });
}
