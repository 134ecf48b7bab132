// A graph operation that runs a function of the caller's on the CPU, which mlx-c does not offer.
#pragma once

#include <stddef.h>

#include "mlx/c/array.h"
#include "mlx/c/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

// One array while a kernel runs: row-contiguous and aligned to its items. `data` may be null when
// `bytes` is zero.
typedef struct {
  void* data;
  size_t bytes;
  const int* shape;
  size_t rank;
  mlx_dtype dtype;
} semantic_view;

typedef struct {
  const int* shape;
  size_t rank;
  mlx_dtype dtype;
} semantic_output;

// What the operation runs, and what that owns.
typedef struct {
  // Called once per evaluation, on the thread of the stream. Inputs are to be read only; outputs
  // are zero when it begins. Writes a text into `message` (nul-terminated, `capacity` bytes at
  // most) and returns non-zero to report a failure, which the evaluation then throws. Must not
  // throw or unwind itself.
  int (*run)(
      void* payload,
      const semantic_view* inputs,
      size_t input_count,
      semantic_view* outputs,
      size_t output_count,
      char* message,
      size_t capacity);
  // Called exactly once, on whichever thread lets go of the operation last.
  void (*drop)(void* payload);
  void* payload;
} semantic_kernel;

// Adds the operation to the graph and puts its `output_count` arrays into `outputs`, which holds
// empty handles before. Takes the payload whatever happens. Returns zero, or non-zero with a text
// in `message`: not through mlx-c's error handler, whose messages only mlx-rs itself can read.
// The handles in `outputs` are the caller's to free in both cases.
int semantic_custom(
    mlx_array* outputs,
    const semantic_output* specs,
    size_t output_count,
    const mlx_array* inputs,
    size_t input_count,
    semantic_kernel kernel,
    mlx_stream stream,
    char* message,
    size_t capacity);

#ifdef __cplusplus
}
#endif
