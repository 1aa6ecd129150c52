// The calling thread's last error. Every failing function of the library returns what
// ring2_set_error returned, so a code never travels without its text.
#ifndef RING2_ERROR_H
#define RING2_ERROR_H

#include "ring2.h"

namespace ring2 {

constexpr unsigned kErrorTextBytes = 512;

}  // namespace ring2

// Keeps the text (cut at kErrorTextBytes - 1 characters) for ring2_last_error and returns -id. The
// text says what was expected and what came; what to do is the error's `action` in errors.json.
int ring2_set_error(int id, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
