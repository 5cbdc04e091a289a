// Settings of libtorch that hold for the whole process.
#include "shim.h"

#include <ATen/Context.h>

char* podium_torch_set_deterministic(bool on) {
  return podium_guarded([on] {
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(on, /*warn_only=*/false);
    context.setDeterministicCuDNN(on);
    context.setBenchmarkCuDNN(false);
    // By default every new tensor would be filled with NaN as well, which costs a kernel for each.
    context.setDeterministicFillUninitializedMemory(false);
  });
}

char* podium_torch_is_deterministic(bool* on) {
  return podium_guarded([on] { *on = at::globalContext().deterministicAlgorithms(); });
}
