// Included before every C++ file of mlx-c: supplies what some compilers and targets lack.
#pragma once

#include <cstdint>

// mlx-c offers half floats only where the compiler has a type for them, which on x86-64 it often
// has not. mlx-rs needs both functions, and to them a half float is 16 bits behind a pointer.
#if !defined(__aarch64__)
#define HAS_FLOAT16
#define HAS_BFLOAT16
typedef struct {
  uint16_t bits;
} float16_t;
typedef uint16_t bfloat16_t;
#endif

// g++ 12 has C++20 without <format>. mlx-c formats its error messages with plain `{}` only.
// The macro __cpp_lib_format would not do: libc++ has std::format years before it defines that.
#if __has_include(<format>)
#include <format>
#else
#include <sstream>
#include <string>
#include <string_view>

namespace std {
inline void semantic_format_to(ostringstream& out, string_view text) {
  out << text;
}

template <typename First, typename... Rest>
void semantic_format_to(
    ostringstream& out,
    string_view text,
    const First& first,
    const Rest&... rest) {
  auto hole = text.find("{}");
  if (hole == string_view::npos) {
    out << text;
    return;
  }
  out << text.substr(0, hole) << first;
  semantic_format_to(out, text.substr(hole + 2), rest...);
}

template <typename... Args>
string format(string_view text, const Args&... args) {
  ostringstream out;
  semantic_format_to(out, text, args...);
  return out.str();
}
} // namespace std
#endif
