// Kernels over the rows of activations: norm and rotation, each in one pass, with gradients.
#include "shim.h"

#include <cmath>

#include <ATen/ops/_fused_rms_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vectorised.h"

namespace {

// Rows of n adjacent numbers.
struct Shape {
  int64_t first;
  int64_t end;
  int64_t n;
};

template <typename T>
PODIUM_INLINE void norm(const T* x, const T* weight, T* y, float* scales, float epsilon, Shape shape) {
  for (int64_t row = shape.first; row < shape.end; ++row) {
    const T* in = x + row * shape.n;
    T* out = y + row * shape.n;
    const float squares = sum(shape.n, [=](int64_t i) { return widen(in[i]) * widen(in[i]); });
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(shape.n) + epsilon);
    scales[row] = scale;
    for (int64_t i = 0; i < shape.n; ++i) {
      out[i] = narrow<T>(widen(narrow<T>(widen(in[i]) * scale)) * widen(weight[i]));
    }
  }
}

template <typename T>
PODIUM_INLINE void norm_backward(
    const T* gradient, const T* x, const T* weight, const float* scales, T* result, Shape shape) {
  for (int64_t row = shape.first; row < shape.end; ++row) {
    const T* of = gradient + row * shape.n;
    const T* in = x + row * shape.n;
    T* out = result + row * shape.n;
    const float scale = scales[row];
    const float product =
        sum(shape.n, [=](int64_t i) { return widen(of[i]) * widen(weight[i]) * widen(in[i]); });
    const float shared = product * scale * scale / static_cast<float>(shape.n);
    for (int64_t i = 0; i < shape.n; ++i) {
      out[i] = narrow<T>(scale * (widen(of[i]) * widen(weight[i]) - widen(in[i]) * shared));
    }
  }
}

// Rotates the halves of each head of n numbers; `sign` -1 rotates back.
template <typename T>
PODIUM_INLINE void rotate(
    const T* x, int64_t stride, const T* cosine, const T* sine, T* y, float sign, int64_t heads, Shape shape) {
  const int64_t half = shape.n / 2;
  for (int64_t row = shape.first; row < shape.end; ++row) {
    const T* cosines = cosine + row * shape.n;
    const T* sines = sine + row * shape.n;
    for (int64_t head = 0; head < heads; ++head) {
      const T* in = x + row * stride + head * shape.n;
      T* out = y + (row * heads + head) * shape.n;
      // A loop for each half: the compiler vectorises loops with one output.
      for (int64_t i = 0; i < half; ++i) {
        out[i] = narrow<T>(widen(in[i]) * widen(cosines[i]) + sign * (widen(in[half + i]) * widen(sines[i])));
      }
      for (int64_t i = 0; i < half; ++i) {
        out[half + i] =
            narrow<T>(widen(in[half + i]) * widen(cosines[half + i]) + sign * (widen(in[i]) * widen(sines[half + i])));
      }
    }
  }
}

// Largest size of a head in `norm_rotate`.
constexpr int64_t kLargestHead = 1024;

// Heads of a row: queries, then keys, each kind with the weights of its norm, or without a norm.
template <typename T>
struct Heads {
  int64_t queries;
  int64_t keys;
  const T* query_weight;
  const T* key_weight;
  float epsilon;
};

// Norms each head of n numbers, then rotates it, like `norm` and `rotate`.
template <typename T>
PODIUM_INLINE void norm_rotate(
    const T* x, int64_t stride, const T* cosine, const T* sine, T* y, const Heads<T>& heads, Shape shape) {
  const int64_t count = heads.queries + heads.keys;
  T normed[kLargestHead];
  float scale;
  for (int64_t row = shape.first; row < shape.end; ++row) {
    for (int64_t head = 0; head < count; ++head) {
      const T* in = x + row * stride + head * shape.n;
      const T* weight = head < heads.queries ? heads.query_weight : heads.key_weight;
      if (weight != nullptr) {
        norm(in, weight, normed, &scale, heads.epsilon, Shape{0, 1, shape.n});
        in = normed;
      }
      rotate(
          in, 0, cosine + row * shape.n, sine + row * shape.n, y + (row * count + head) * shape.n, 1.0f, 1,
          Shape{0, 1, shape.n});
    }
  }
}

PODIUM_VECTORISED void norm_rotate_float(
    const float* x, int64_t stride, const float* cosine, const float* sine, float* y, const Heads<float>& heads,
    Shape shape) {
  norm_rotate(x, stride, cosine, sine, y, heads, shape);
}

PODIUM_VECTORISED void norm_rotate_bfloat16(
    const c10::BFloat16* x, int64_t stride, const c10::BFloat16* cosine, const c10::BFloat16* sine,
    c10::BFloat16* y, const Heads<c10::BFloat16>& heads, Shape shape) {
  norm_rotate(x, stride, cosine, sine, y, heads, shape);
}

PODIUM_VECTORISED void norm_float(
    const float* x, const float* weight, float* y, float* scales, float epsilon, Shape shape) {
  norm(x, weight, y, scales, epsilon, shape);
}

PODIUM_VECTORISED void norm_bfloat16(
    const c10::BFloat16* x, const c10::BFloat16* weight, c10::BFloat16* y, float* scales, float epsilon,
    Shape shape) {
  norm(x, weight, y, scales, epsilon, shape);
}

PODIUM_VECTORISED void norm_backward_float(
    const float* gradient, const float* x, const float* weight, const float* scales, float* result, Shape shape) {
  norm_backward(gradient, x, weight, scales, result, shape);
}

PODIUM_VECTORISED void norm_backward_bfloat16(
    const c10::BFloat16* gradient, const c10::BFloat16* x, const c10::BFloat16* weight, const float* scales,
    c10::BFloat16* result, Shape shape) {
  norm_backward(gradient, x, weight, scales, result, shape);
}

PODIUM_VECTORISED void rotate_float(
    const float* x, int64_t stride, const float* cosine, const float* sine, float* y, float sign, int64_t heads,
    Shape shape) {
  rotate(x, stride, cosine, sine, y, sign, heads, shape);
}

PODIUM_VECTORISED void rotate_bfloat16(
    const c10::BFloat16* x, int64_t stride, const c10::BFloat16* cosine, const c10::BFloat16* sine,
    c10::BFloat16* y, float sign, int64_t heads, Shape shape) {
  rotate(x, stride, cosine, sine, y, sign, heads, shape);
}

class Norm : public torch::autograd::Function<Norm> {
 public:
  static at::Tensor forward(
      torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double epsilon) {
    const auto input = x.contiguous();
    const auto n = input.size(-1), rows = input.numel() / n;
    auto output = at::empty_like(input);
    auto scales = at::empty({rows}, input.options().dtype(at::kFloat));
    in_parallel(rows, n, kCheap, [&](int64_t first, int64_t end) {
      const Shape shape{first, end, n};
      auto* scale = scales.data_ptr<float>();
      const auto small = static_cast<float>(epsilon);
      if (input.scalar_type() == at::kFloat) {
        norm_float(
            input.const_data_ptr<float>(), weight.const_data_ptr<float>(), output.data_ptr<float>(), scale, small,
            shape);
      } else {
        norm_bfloat16(
            input.const_data_ptr<at::BFloat16>(), weight.const_data_ptr<at::BFloat16>(),
            output.data_ptr<at::BFloat16>(), scale, small, shape);
      }
    });
    context->save_for_backward({input, weight, scales});
    return output;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, torch::autograd::variable_list outputs) {
    const auto saved = context->get_saved_variables();
    const auto &input = saved[0], &weight = saved[1], &scales = saved[2];
    const auto gradient = outputs[0].contiguous();
    const auto n = input.size(-1), rows = input.numel() / n;
    at::Tensor of_input, of_weight;
    if (context->needs_input_grad(0)) {
      of_input = at::empty_like(input);
      in_parallel(rows, n, kCheap, [&](int64_t first, int64_t end) {
        const Shape shape{first, end, n};
        const auto* scale = scales.const_data_ptr<float>();
        if (input.scalar_type() == at::kFloat) {
          norm_backward_float(
              gradient.const_data_ptr<float>(), input.const_data_ptr<float>(), weight.const_data_ptr<float>(), scale,
              of_input.data_ptr<float>(), shape);
        } else {
          norm_backward_bfloat16(
              gradient.const_data_ptr<at::BFloat16>(), input.const_data_ptr<at::BFloat16>(),
              weight.const_data_ptr<at::BFloat16>(), scale, of_input.data_ptr<at::BFloat16>(), shape);
        }
      });
    }
    if (context->needs_input_grad(1)) {
      const auto normed = input.view({rows, n}).to(at::kFloat).mul_(scales.unsqueeze(-1));
      of_weight = gradient.view({rows, n}).to(at::kFloat).mul_(normed).sum(0).to(weight.scalar_type());
    }
    return {of_input, of_weight, {}};
  }
};

class Rotation : public torch::autograd::Function<Rotation> {
 public:
  static at::Tensor forward(
      torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& cosine,
      const at::Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return rotated(x, cosine, sine, 1.0f);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, torch::autograd::variable_list outputs) {
    const auto saved = context->get_saved_variables();
    return {rotated(outputs[0], saved[0], saved[1], -1.0f), {}, {}};
  }

 private:
  static at::Tensor rotated(const at::Tensor& rows, const at::Tensor& cosine, const at::Tensor& sine, float sign) {
    const auto heads = rows.size(1), n = rows.size(2);
    const bool dense = rows.stride(2) == 1 && rows.stride(1) == n;
    const auto x = dense ? rows : rows.contiguous();
    auto y = at::empty(x.sizes(), x.options());
    in_parallel(x.size(0), heads * n, kCheap, [&](int64_t first, int64_t end) {
      const Shape shape{first, end, n};
      if (x.scalar_type() == at::kFloat) {
        rotate_float(
            x.const_data_ptr<float>(), x.stride(0), cosine.const_data_ptr<float>(), sine.const_data_ptr<float>(),
            y.data_ptr<float>(), sign, heads, shape);
      } else {
        rotate_bfloat16(
            x.const_data_ptr<at::BFloat16>(), x.stride(0), cosine.const_data_ptr<at::BFloat16>(),
            sine.const_data_ptr<at::BFloat16>(), y.data_ptr<at::BFloat16>(), sign, heads, shape);
      }
    });
    return y;
  }
};

}  // namespace

char* podium_torch_rms_norm(at::Tensor* x, at::Tensor* weight, double epsilon, at::Tensor** output) {
  return podium_guarded([=] {
    const auto n = weight->numel();
    TORCH_CHECK(
        x->dim() > 0 && x->size(-1) == n && x->scalar_type() == weight->scalar_type(), "rows of ", x->sizes(), " in ",
        x->scalar_type(), " for a norm of ", n, " numbers in ", weight->scalar_type(),
        ": expected rows of this size and type");
    if (!x->is_cpu()) {
      *output = new at::Tensor(std::get<0>(at::_fused_rms_norm(*x, {n}, *weight, epsilon)));
      return;
    }
    check_type(*x);
    *output = new at::Tensor(Norm::apply(*x, *weight, epsilon));
  });
}

char* podium_torch_rotate(at::Tensor* x, at::Tensor* cosine, at::Tensor* sine, at::Tensor** output) {
  return podium_guarded([=] {
    TORCH_CHECK(
        x->dim() == 3 && x->size(2) % 2 == 0 && cosine->numel() == x->size(0) * x->size(2) &&
            sine->numel() == cosine->numel() && cosine->is_contiguous() && sine->is_contiguous(),
        "heads of ", x->sizes(), " and ", cosine->sizes(), " cosines: expected [rows, heads, D] and [rows, D]");
    if (!x->is_cpu()) {
      const auto of_rows = [&](const at::Tensor& angles) { return angles.view({x->size(0), 1, x->size(2)}); };
      const auto swapped = x->roll({x->size(2) / 2}, {2});
      *output = new at::Tensor(x->mul(of_rows(*cosine)).addcmul(swapped, of_rows(*sine)));
      return;
    }
    check_type(*x);
    TORCH_CHECK(
        x->scalar_type() == cosine->scalar_type() && x->scalar_type() == sine->scalar_type(), "heads in ",
        x->scalar_type(), ", and cosines in ", cosine->scalar_type(), ": expected the same type");
    *output = new at::Tensor(Rotation::apply(*x, *cosine, *sine));
  });
}

char* podium_torch_norm_rotate(
    at::Tensor* x, int64_t query_heads, at::Tensor* query_weight, at::Tensor* key_weight, double epsilon,
    at::Tensor* cosine, at::Tensor* sine, at::Tensor** output) {
  return podium_guarded([=] {
    const auto rows = x->size(0), heads = x->size(1), n = x->size(2);
    check_type(*x);
    TORCH_CHECK(
        x->is_cpu() && x->stride(2) == 1 && x->stride(1) == n && n % 2 == 0 && n <= kLargestHead &&
            query_heads <= heads && cosine->numel() == rows * n && cosine->is_contiguous() && sine->is_contiguous() &&
            sine->numel() == rows * n,
        "heads of ", x->sizes(), " and ", cosine->sizes(), " cosines: expected adjacent heads of at most ", kLargestHead,
        " numbers, and [rows, D]");
    auto y = at::empty({rows, heads, n}, x->options());
    const auto compute = [&](auto zero, const auto& kernel) {
      using T = decltype(zero);
      const auto weight = [n](const at::Tensor* weight) {
        TORCH_CHECK(weight == nullptr || weight->numel() == n, "a norm of another size than the heads");
        return weight == nullptr ? nullptr : weight->const_data_ptr<T>();
      };
      const Heads<T> of{
          query_heads, heads - query_heads, weight(query_weight), weight(key_weight), static_cast<float>(epsilon)};
      in_parallel(rows, heads * n, kCheap, [&](int64_t first, int64_t end) {
        kernel(
            x->const_data_ptr<T>(), x->stride(0), cosine->const_data_ptr<T>(), sine->const_data_ptr<T>(),
            y.template data_ptr<T>(), of, Shape{first, end, n});
      });
    };
    if (x->scalar_type() == at::kFloat) {
      compute(float{}, norm_rotate_float);
    } else {
      compute(at::BFloat16{}, norm_rotate_bfloat16);
    }
    *output = new at::Tensor(y);
  });
}
