/* y = x W' with weights in 16 bits and everything else in float32, see weights.py.

   A product of a few vectors is bound by the weights that it reads: each thread takes its share of
   the rows, ROWS at a time, and asks for the next ROWS while it computes. */

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define WIDENED(at) _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(at)))
#elif defined(__F16C__)
#include <immintrin.h>
#define LANES 8
#define WIDENED(at) _mm256_cvtph_ps(_mm_loadu_si128((const void *)(at)))
#elif defined(__aarch64__)
#define LANES 8
#define WIDENED(at) __builtin_convertvector(*(const numbers *)(at), floats)
typedef _Float16 numbers __attribute__((vector_size(2 * LANES), aligned(2)));
#else
#error "no instruction that widens float16"
#endif

#define ROWS 4

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

static inline floats of_bfloat16(const uint16_t *at) {
  halves bits;
  memcpy(&bits, at, sizeof bits);
  return (floats)(__builtin_convertvector(bits, words) << 16);
}

static inline floats of_float16(const uint16_t *at) { return (floats)WIDENED(at); }

/* y[r] = x . w[r] for r < rows, a constant where this is inlined. */
#define DOT(TYPE)                                                                              \
  static inline __attribute__((always_inline)) void dot_##TYPE(                                \
      const float *x, const uint16_t *w, float *y, long k, int rows) {                         \
    floats sums[ROWS] = {0};                                                                   \
    for (long j = 0; j < k; j += LANES) {                                                      \
      floats at;                                                                               \
      memcpy(&at, x + j, sizeof at);                                                           \
      for (int r = 0; r < rows; r++) {                                                         \
        __builtin_prefetch(w + (ROWS + r) * k + j);                                            \
        sums[r] += at * of_##TYPE(w + r * k + j);                                              \
      }                                                                                        \
    }                                                                                          \
    for (int r = 0; r < rows; r++) {                                                           \
      float sum = 0;                                                                           \
      for (int lane = 0; lane < LANES; lane++) sum += sums[r][lane];                           \
      y[r] = sum;                                                                              \
    }                                                                                          \
  }

/* x (m, k), w (n, k), y (m, n), all contiguous; k is a multiple of LANES. */
#define PRODUCT(TYPE)                                                                          \
  DOT(TYPE)                                                                                    \
  void product_##TYPE(const float *x, const uint16_t *w, float *y, long m, long n, long k,     \
                      int threads) {                                                           \
    _Pragma("omp parallel for schedule(static) num_threads(threads)")                          \
    for (long first = 0; first < n; first += ROWS)                                             \
      for (long i = 0; i < m; i++)                                                             \
        if (first + ROWS <= n)                                                                 \
          dot_##TYPE(x + i * k, w + first * k, y + i * n + first, k, ROWS);                    \
        else                                                                                   \
          for (long r = first; r < n; r++)                                                     \
            dot_##TYPE(x + i * k, w + r * k, y + i * n + r, k, 1);                             \
  }

PRODUCT(float16)
PRODUCT(bfloat16)
