#include "error.h"

#include <cstdarg>
#include <cstdio>

namespace {

thread_local char last_error[ring2::kErrorTextBytes] = "no error";

}  // namespace

int ring2_set_error(int id, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return -id;
}

extern "C" RING2_API const char *ring2_last_error(void) { return last_error; }
