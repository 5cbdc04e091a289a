#include "shim.h"

#include <cstdlib>
#include <cstring>
#include <exception>

#include <c10/util/Exception.h>

char* podium_guarded(const std::function<void()>& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

void podium_torch_free(char* message) { std::free(message); }
