// The product of a gate and another map, in one pass, with gradients. Gates below -87 count as -87 in the exponential.
#include "shim.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include "vectorised.h"

namespace {

// Rows of n adjacent numbers, `stride` apart.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;
};

template <typename T>
PODIUM_INLINE void gate(Rows<const T> gate, Rows<const T> up, T* y, int64_t first, int64_t end, int64_t n) {
  for (int64_t row = first; row < end; ++row) {
    const T* g = gate.data + row * gate.stride;
    const T* u = up.data + row * up.stride;
    T* out = y + row * n;
    for (int64_t i = 0; i < n; ++i) {
      const float x = widen(g[i]);
      out[i] = narrow<T>(x / (1.0f + exponential(-x)) * widen(u[i]));
    }
  }
}

template <typename T>
PODIUM_INLINE void gate_backward(
    const T* gradient, Rows<const T> gate, Rows<const T> up, T* of_gate, T* of_up, int64_t first, int64_t end,
    int64_t n) {
  for (int64_t row = first; row < end; ++row) {
    const T* of = gradient + row * n;
    const T* g = gate.data + row * gate.stride;
    const T* u = up.data + row * up.stride;
    T* gate_out = of_gate + row * n;
    T* up_out = of_up + row * n;
    // The compiler vectorises a loop with one output; with both in one it computes number by number, five times slower.
    for (int64_t i = 0; i < n; ++i) {
      const float x = widen(g[i]);
      const float sigmoid = 1.0f / (1.0f + exponential(-x));
      const float silu = x * sigmoid;
      gate_out[i] = narrow<T>(widen(of[i]) * widen(u[i]) * (sigmoid + silu * (1.0f - sigmoid)));
    }
    for (int64_t i = 0; i < n; ++i) {
      const float x = widen(g[i]);
      up_out[i] = narrow<T>(widen(of[i]) * (x * (1.0f / (1.0f + exponential(-x)))));
    }
  }
}

PODIUM_VECTORISED void gate_float(
    Rows<const float> of, Rows<const float> up, float* y, int64_t first, int64_t end, int64_t n) {
  gate(of, up, y, first, end, n);
}

PODIUM_VECTORISED void gate_bfloat16(
    Rows<const c10::BFloat16> of, Rows<const c10::BFloat16> up, c10::BFloat16* y, int64_t first, int64_t end,
    int64_t n) {
  gate(of, up, y, first, end, n);
}

PODIUM_VECTORISED void gate_backward_float(
    const float* gradient, Rows<const float> of, Rows<const float> up, float* of_gate, float* of_up, int64_t first,
    int64_t end, int64_t n) {
  gate_backward(gradient, of, up, of_gate, of_up, first, end, n);
}

PODIUM_VECTORISED void gate_backward_bfloat16(
    const c10::BFloat16* gradient, Rows<const c10::BFloat16> of, Rows<const c10::BFloat16> up,
    c10::BFloat16* of_gate, c10::BFloat16* of_up, int64_t first, int64_t end, int64_t n) {
  gate_backward(gradient, of, up, of_gate, of_up, first, end, n);
}

template <typename T>
Rows<const T> rows(const at::Tensor& x) {
  return {x.const_data_ptr<T>(), x.stride(0)};
}

at::Tensor adjacent_columns(const at::Tensor& x) { return x.stride(1) == 1 ? x : x.contiguous(); }

class Gate : public torch::autograd::Function<Gate> {
 public:
  static at::Tensor forward(
      torch::autograd::AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    if (!gate.is_cpu()) {
      context->save_for_backward({gate, up});
      return at::silu(gate).mul_(up);
    }
    const auto g = adjacent_columns(gate), u = adjacent_columns(up);
    const auto n = g.size(1);
    auto y = at::empty(g.sizes(), g.options());
    in_parallel(g.size(0), n, kExponential, [&](int64_t first, int64_t end) {
      if (g.scalar_type() == at::kFloat) {
        gate_float(rows<float>(g), rows<float>(u), y.data_ptr<float>(), first, end, n);
      } else {
        gate_bfloat16(
            rows<at::BFloat16>(g), rows<at::BFloat16>(u), y.data_ptr<at::BFloat16>(), first, end, n);
      }
    });
    context->save_for_backward({g, u});
    return y;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, torch::autograd::variable_list outputs) {
    const auto saved = context->get_saved_variables();
    const auto &g = saved[0], &u = saved[1];
    if (!g.is_cpu()) {
      return {at::silu_backward(outputs[0].mul(u), g), at::silu(g).mul_(outputs[0])};
    }
    const auto gradient = outputs[0].contiguous();
    const auto n = g.size(1);
    auto of_gate = at::empty(g.sizes(), g.options()), of_up = at::empty(g.sizes(), g.options());
    in_parallel(g.size(0), n, kExponential, [&](int64_t first, int64_t end) {
      if (g.scalar_type() == at::kFloat) {
        gate_backward_float(
            gradient.const_data_ptr<float>(), rows<float>(g), rows<float>(u), of_gate.data_ptr<float>(),
            of_up.data_ptr<float>(), first, end, n);
      } else {
        gate_backward_bfloat16(
            gradient.const_data_ptr<at::BFloat16>(), rows<at::BFloat16>(g), rows<at::BFloat16>(u),
            of_gate.data_ptr<at::BFloat16>(), of_up.data_ptr<at::BFloat16>(), first, end, n);
      }
    });
    return {of_gate, of_up};
  }
};

}  // namespace

at::Tensor podium_gate(const at::Tensor& gate, const at::Tensor& up) {
  TORCH_CHECK(
      gate.dim() == 2 && gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(), "a gate of ",
      gate.sizes(), " in ", gate.scalar_type(), " for ", up.sizes(), " in ", up.scalar_type(),
      ": expected two matrices of one size and type");
  check_type(gate);
  return Gate::apply(gate, up);
}

char* podium_torch_gate(at::Tensor* gate, at::Tensor* up, at::Tensor** output) {
  return podium_guarded([=] { *output = new at::Tensor(podium_gate(*gate, *up)); });
}
