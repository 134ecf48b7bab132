// What bindgen reads in place of mlx-c's half.h: the same two types on every target, without the
// compiler's own headers for them (clang cannot read those of gcc).
#pragma once

#include <stdint.h>

#define MLX_HALF_H
#define HAS_FLOAT16
#define HAS_BFLOAT16
typedef struct {
  uint16_t bits;
} float16_t;
typedef uint16_t bfloat16_t;
