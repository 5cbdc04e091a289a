// Memory of devices, as their caching allocators report it, and of the CPU, as its allocator reports it to profilers.
#include "shim.h"

#include <algorithm>
#include <memory>

#include <ATen/DeviceAccelerator.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace {

// Sums the bytes that this thread, and the threads that work for it, allocate and release on the CPU.
class Tracker : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device device) override {
    if (device.is_cpu()) {
      bytes_ += size;
      peak_ = std::max(peak_, bytes_);
    }
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes() const { return bytes_; }
  int64_t peak() const { return peak_; }

 private:
  int64_t bytes_ = 0;
  int64_t peak_ = 0;
};

constexpr auto kKind = c10::DebugInfoKind::PROFILER_STATE;

bool has_device() { return at::accelerator::deviceCount() > 0; }

}  // namespace

char* podium_torch_empty_cache() {
  return podium_guarded([] {
    if (has_device()) {
      at::accelerator::emptyCache();
    }
  });
}

char* podium_torch_device_memory(int8_t device, podium_device_memory* memory) {
  return podium_guarded([=] {
    const auto stats = at::accelerator::getDeviceStats(device);
    const auto all = static_cast<size_t>(at::CachingAllocator::StatType::AGGREGATE);
    const auto [free, total] = at::accelerator::getMemoryInfo(device);
    *memory = {
        stats.allocated_bytes[all].current, stats.allocated_bytes[all].peak,
        stats.reserved_bytes[all].current,  stats.reserved_bytes[all].peak,
        static_cast<int64_t>(free),         static_cast<int64_t>(total),
    };
  });
}

char* podium_torch_reset_peak(int8_t device) {
  return podium_guarded([=] { at::accelerator::resetPeakStats(device); });
}

char* podium_torch_track_start() {
  return podium_guarded([] {
    TORCH_CHECK(c10::ThreadLocalDebugInfo::get(kKind) == nullptr, "this thread already tracks its memory");
    c10::ThreadLocalDebugInfo::_push(kKind, std::make_shared<Tracker>());
  });
}

char* podium_torch_track_stop(int64_t* peak, int64_t* remaining) {
  return podium_guarded([=] {
    const auto info = std::dynamic_pointer_cast<Tracker>(c10::ThreadLocalDebugInfo::_pop(kKind));
    TORCH_CHECK(info, "this thread does not track its memory");
    *peak = info->peak();
    *remaining = info->bytes();
  });
}
