// One matrix product of llama.cpp's between two marks, for products.py, as llama.cpp divides it among
// its kernels for 64-bit Arm: four tokens at a time and the rest one by one, or without dot products one
// dot product after the other.
//
//     ggml_product neon|neon-dotprod|neon-i8mm int4|int8 ROWS INPUTS TOKENS
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "quants.h"
#include "repack.h"

extern "C" __attribute__((noinline)) void trace_begin() { __asm__ volatile("nop"); }
extern "C" __attribute__((noinline)) void trace_end() { __asm__ volatile("nop\n nop"); }

namespace {

using Kernel = void(int, float *, size_t, const void *, const void *, int, int);

// Weights repacked for a level of instructions.
struct Repacked {
  Kernel *one;
  Kernel *four;
};

void repacked(const Repacked &kernels, int rows, int inputs, int tokens, const char *weights,
              const char *values, float *out) {
  int together = tokens - tokens % 4;
  if (together > 0) kernels.four(inputs, out, rows, weights, values, together, rows);
  for (int t = together; t < tokens; t++) {
    const char *token = values + t * (inputs / QK8_0) * sizeof(block_q8_0);
    kernels.one(inputs, out + t * rows, rows, weights, token, 1, rows);
  }
}

void dot_products(bool int4, int rows, int inputs, int tokens, const char *weights,
                  const char *values, float *out) {
  size_t row_bytes = inputs / QK8_0 * (int4 ? sizeof(block_q4_0) : sizeof(block_q8_0));
  size_t token_bytes = inputs / QK8_0 * sizeof(block_q8_0);
  auto *dot = int4 ? ggml_vec_dot_q4_0_q8_0 : ggml_vec_dot_q8_0_q8_0;
  for (int t = 0; t < tokens; t++)
    for (int r = 0; r < rows; r++)
      dot(inputs, out + t * rows + r, 0, weights + r * row_bytes, 0, values + t * token_bytes, 0, 1);
}

}  // namespace

int main(int count, char **arguments) {
  if (count != 6) return 2;
  const char *isa = arguments[1];
  bool int4 = std::strcmp(arguments[2], "int4") == 0;
  int rows = std::atoi(arguments[3]), inputs = std::atoi(arguments[4]), tokens = std::atoi(arguments[5]);
  // The way of a product does not depend on what is multiplied.
  std::vector<char> weights(rows * inputs * 2, 1), values(tokens * inputs * 2, 1);
  std::vector<float> out(tokens * rows);

  bool mmla = std::strcmp(isa, "neon-i8mm") == 0;
  Repacked kernels = int4 ? mmla ? Repacked{ggml_gemv_q4_0_4x8_q8_0, ggml_gemm_q4_0_4x8_q8_0}
                                 : Repacked{ggml_gemv_q4_0_4x4_q8_0, ggml_gemm_q4_0_4x4_q8_0}
                     : mmla ? Repacked{ggml_gemv_q8_0_4x8_q8_0, ggml_gemm_q8_0_4x8_q8_0}
                            : Repacked{ggml_gemv_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x4_q8_0};
  bool repack = std::strcmp(isa, "neon") != 0;
  trace_begin();
  if (repack)
    repacked(kernels, rows, inputs, tokens, weights.data(), values.data(), out.data());
  else
    dot_products(int4, rows, inputs, tokens, weights.data(), values.data(), out.data());
  trace_end();
  std::fprintf(stderr, "%g\n", out[0]);
}
