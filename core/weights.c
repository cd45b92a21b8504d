/* y = x W' with weights in 16 bits and everything else in float32, see weights.py.

   A product of a few vectors is bound by the weights that it reads: each thread reads its share of
   them from the first to the last, as memory is fastest read, and asks for what comes AHEAD. */

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

#define BLOCK 64  /* numbers that are summed side by side */
#define LINE 32   /* numbers that memory is read by */
#define AHEAD 512 /* numbers */

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

static inline floats of_bfloat16(const uint16_t *at) {
  halves bits;
  memcpy(&bits, at, sizeof bits);
  return (floats)(__builtin_convertvector(bits, words) << 16);
}

static inline floats of_float16(const uint16_t *at) { return (floats)WIDENED(at); }

static inline floats of_float32(const float *at) {
  floats numbers;
  memcpy(&numbers, at, sizeof numbers);
  return numbers;
}

#define PRODUCT(TYPE)                                                                          \
  static float dot_##TYPE(const float *x, const uint16_t *w, long k) {                         \
    floats sums[BLOCK / LANES] = {0};                                                          \
    long j = 0;                                                                                \
    for (; j + BLOCK <= k; j += BLOCK) {                                                       \
      for (int ahead = AHEAD; ahead < AHEAD + BLOCK; ahead += LINE)                            \
        __builtin_prefetch(w + j + ahead, 0, 2);                                               \
      for (int i = 0; i < BLOCK / LANES; i++)                                                  \
        sums[i] += of_float32(x + j + i * LANES) * of_##TYPE(w + j + i * LANES);               \
    }                                                                                          \
    for (; j < k; j += LANES) sums[0] += of_float32(x + j) * of_##TYPE(w + j);                 \
    for (int i = 1; i < BLOCK / LANES; i++) sums[0] += sums[i];                                \
    float sum = 0;                                                                             \
    for (int lane = 0; lane < LANES; lane++) sum += sums[0][lane];                             \
    return sum;                                                                                \
  }                                                                                            \
  /* x (m, k), w (n, k), y (m, n), all contiguous; k is a multiple of LANES. */                \
  void product_##TYPE(const float *x, const uint16_t *w, float *y, long m, long n, long k,     \
                      int threads) {                                                           \
    _Pragma("omp parallel for schedule(static) num_threads(threads)")                          \
    for (long r = 0; r < n; r++)                                                               \
      for (long i = 0; i < m; i++) y[i * n + r] = dot_##TYPE(x + i * k, w + r * k, k);         \
  }

PRODUCT(float16)
PRODUCT(bfloat16)
