// Counts the operations that a thread dispatches.
#include "shim.h"

#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>

namespace {

struct Counter {
  podium_operations counted{};
  // For each operation in progress, whether one that it called computes.
  std::vector<bool> computed_inside;
  at::CallbackHandle handle = 0;
};

thread_local std::unique_ptr<Counter> counter;

std::unique_ptr<at::ObserverContext> started(const at::RecordFunction&) {
  if (counter) {
    if (counter->computed_inside.empty()) {
      counter->counted.calls += 1;
    }
    counter->computed_inside.push_back(false);
  }
  return nullptr;
}

// Whether an operation computes nothing: it returns a view, or memory without values.
bool is_free(const at::RecordFunction& function, std::string_view name) {
  if (name.rfind("aten::empty", 0) == 0 || name == "aten::detach" || name == "aten::resize_") {
    return true;
  }
  const auto schema = function.operator_schema();
  if (!schema || schema->returns().empty()) {
    return false;
  }
  const auto* alias = schema->returns()[0].alias_info();
  return alias != nullptr && !alias->isWrite();
}

void ended(const at::RecordFunction& function, at::ObserverContext*) {
  if (!counter || counter->computed_inside.empty()) {
    return;
  }
  auto& inside = counter->computed_inside;
  const bool by_others = inside.back();
  inside.pop_back();
  const std::string_view name = function.name();
  if (!by_others) {
    if (name == "aten::_local_scalar_dense") {
      counter->counted.reads += 1;
    } else if (is_free(function, name)) {
      return;
    } else {
      counter->counted.kernels += 1;
      counter->counted.copies += name == "aten::copy_" ? 1 : 0;
    }
  }
  if (!inside.empty()) {
    inside.back() = true;
  }
}

}  // namespace

char* podium_torch_count_start() {
  return podium_guarded([] {
    TORCH_CHECK(!counter, "this thread already counts its operations");
    counter = std::make_unique<Counter>();
    counter->handle = at::addThreadLocalCallback(
        at::RecordFunctionCallback(started, ended).scopes({at::RecordScope::FUNCTION}));
  });
}

char* podium_torch_count_stop(podium_operations* counted) {
  return podium_guarded([=] {
    TORCH_CHECK(counter, "this thread does not count its operations");
    at::removeCallback(counter->handle);
    *counted = counter->counted;
    counter.reset();
  });
}
