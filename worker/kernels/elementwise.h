// SPDX-License-Identifier: Apache-2.0
// Bodies of the row-wise kernels: plain loops over one row, generic in the element type, so that
// the same text is compiled for each instruction set and for double in tests. What concerns one
// element is constexpr: other devices' compilers may call it (cuda/).
// All is static and uses built-ins only: these functions are compiled with different target flags
// into different files, and with external linkage the linker could pick the body for another
// instruction set.
#pragma once

#include <cstdint>

namespace mft::elementwise {

// e^x for x in the range of float, to about 1 ulp: 2^n times a polynomial in r = x - n ln 2, |r| <=
// ln 2 / 2.
static constexpr float Exp(float x) {
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRound =
      12582912.0F;              // 1.5 * 2^23: adding and subtracting it rounds to an integer
  x = x < -87.0F ? -87.0F : x;  // e^-87 is about 1e-38; smaller results do not matter
  x = x > 88.0F ? 88.0F : x;
  const float shifted = x * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float e = p * r * r + r + 1.0F;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  return e * __builtin_bit_cast(float, bits);
}
static constexpr double Exp(double x) {
  return __builtin_exp(x);
}

static constexpr float Sqrt(float x) {
  return __builtin_sqrtf(x);
}
static constexpr double Sqrt(double x) {
  return __builtin_sqrt(x);
}
static constexpr float Log(float x) {
  return __builtin_logf(x);
}
static constexpr double Log(double x) {
  return __builtin_log(x);
}

template <typename T>
static constexpr T Sigmoid(T x) {
  return T(1) / (T(1) + Exp(-x));
}

template <typename T>
static T InverseRms(const T* x, int64_t n, T eps) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    sum += x[i] * x[i];
  }
  return T(1) / Sqrt(sum / static_cast<T>(n) + eps);
}

// y = x * r * weight, r = 1 / sqrt(mean(x^2) + eps)
template <typename T>
static void RmsNormRow(T* y, const T* x, const T* weight, int64_t n, T eps) {
  const T r = InverseRms(x, n, eps);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    y[i] = x[i] * r * weight[i];
  }
}

// dx += r (w dy) - x r^3 / n * sum(w dy x)
template <typename T>
static void RmsNormBackwardRow(T* dx, const T* dy, const T* x, const T* weight, int64_t n, T eps) {
  const T r = InverseRms(x, n, eps);
  T dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; ++i) {
    dot += weight[i] * dy[i] * x[i];
  }
  const T factor = dot * r * r * r / static_cast<T>(n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    dx[i] += r * weight[i] * dy[i] - factor * x[i];
  }
}

// (a, b) turned by the angle of cosine c and sine s.
template <typename T>
static constexpr void RotatePair(T& a, T& b, T c, T s) {
  const T x = a;
  const T y = b;
  a = x * c - y * s;
  b = x * s + y * c;
}

// Pairs (2j, 2j+1) of every head times e^(i sign angle_j); table holds (cos, sin) of this
// position's angles.
template <typename T>
static void RotaryRow(T* x, const T* table, int64_t heads, int64_t head_dim, T sign) {
  for (int64_t head = 0; head < heads; ++head) {
    T* pair = x + head * head_dim;
#pragma omp simd
    for (int64_t j = 0; j < head_dim; j += 2) {
      RotatePair(pair[j], pair[j + 1], table[j], sign * table[j + 1]);
    }
  }
}

// silu(gate) * up
template <typename T>
static constexpr T Swiglu(T gate, T up) {
  return gate * Sigmoid(gate) * up;
}

template <typename T>
static void SwigluRow(T* act, const T* gate, const T* up, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    act[i] = Swiglu(gate[i], up[i]);
  }
}

// gate, up, d_act become d_gate, d_up, act: silu'(g) = s + g s (1 - s). Returns d_act act.
template <typename T>
static constexpr T SwigluBackward(T& d_act, T& gate, T& up) {
  const T g = gate;
  const T u = up;
  const T d = d_act;
  const T s = Sigmoid(g);
  const T silu = g * s;
  gate = d * u * (s + silu * (T(1) - s));
  up = d * silu;
  d_act = silu * u;
  return d * (silu * u);
}

// The same of a row; returns the sum.
template <typename T>
static T SwigluBackwardRow(T* d_act, T* gate, T* up, int64_t n) {
  T dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; ++i) {
    dot += SwigluBackward(d_act[i], gate[i], up[i]);
  }
  return dot;
}

template <typename T>
static T MaxOf(const T* x, int64_t n) {
  T best = x[0];
#pragma omp simd reduction(max : best)
  for (int64_t i = 0; i < n; ++i) {
    best = x[i] > best ? x[i] : best;
  }
  return best;
}

template <typename T>
static T Dot(const T* x, const T* y, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    sum += x[i] * y[i];
  }
  return sum;
}

// scores become e^(scale * score - shift); returns their sum.
template <typename T>
static T ExpRow(T* scores, int64_t n, T scale, T shift) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const T e = Exp(scale * scores[i] - shift);
    scores[i] = e;
    sum += e;
  }
  return sum;
}

// scores become p = e^(scale * score - lse), d_p becomes scale * p * (d_p - delta): softmax
// backward of one row.
template <typename T>
static void AttentionBackwardRow(T* scores, T* d_p, int64_t n, T scale, T lse, T delta) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T p = Exp(scale * scores[i] - lse);
    scores[i] = p;
    d_p[i] = scale * p * (d_p[i] - delta);
  }
}

template <typename T>
static void ScaleRow(T* x, int64_t n, T factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    x[i] *= factor;
  }
}

// bf16 is the upper half of fp32.
static inline void WidenRow(float* y, const uint16_t* bf16, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    y[i] = __builtin_bit_cast(float, static_cast<uint32_t>(bf16[i]) << 16);
  }
}

template <typename T>
static void AddRow(T* y, const T* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    y[i] += x[i];
  }
}

}  // namespace mft::elementwise
