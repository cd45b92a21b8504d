/* y = x W' for M vectors, with weights in 16 bits and everything else in float32: see weights.py.

   A product of a few vectors is bound by the weights that it reads: each thread reads its share of
   them from the first to the last, as memory is fastest read, and asks for what comes AHEAD. With
   several vectors each weight is widened once for all of them, and each number of a vector is read
   once for ROWS of weights.

   Compiled for M from 1 to 8 and with WIDEN as of_float16 or of_bfloat16. */

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

#define ROWS (M > 1 ? 2 : 1)
#define SUMS (M > 2 ? 1 : 4 / M) /* of each product: none of them waits for another */
#define BLOCK (SUMS * LANES)
#define LINE 32   /* numbers that memory is read by */
#define AHEAD 512 /* numbers */
#define UNROLLED _Pragma("GCC unroll 8")

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

static inline float total(floats sums) {
  float sum = 0;
  for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
  return sum;
}

/* x (M, k), w (n, k), y (M, n), all contiguous; k is a multiple of LANES. A last row of weights that
   stands alone is taken twice. */
void product(const float *x, const uint16_t *w, float *y, long n, long k, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (long first = 0; first < n; first += ROWS) {
    long row[ROWS];
    floats sums[M][ROWS][SUMS] = {0}, wide[ROWS];
    UNROLLED for (int r = 0; r < ROWS; r++) row[r] = first + r < n ? first + r : n - 1;
    long j = 0;
    for (; j + BLOCK <= k; j += BLOCK) {
      UNROLLED for (int r = 0; r < ROWS; r++)
        for (int ahead = AHEAD; ahead < AHEAD + BLOCK; ahead += LINE)
          __builtin_prefetch(w + row[r] * k + j + ahead, 0, 2);
      UNROLLED for (int s = 0; s < SUMS; s++) {
        const long at = j + s * LANES;
        UNROLLED for (int r = 0; r < ROWS; r++) wide[r] = WIDEN(w + row[r] * k + at);
        UNROLLED for (int i = 0; i < M; i++)
          UNROLLED for (int r = 0; r < ROWS; r++)
            sums[i][r][s] += of_float32(x + i * k + at) * wide[r];
      }
    }
    for (; j < k; j += LANES)
      UNROLLED for (int i = 0; i < M; i++)
        UNROLLED for (int r = 0; r < ROWS; r++)
          sums[i][r][0] += of_float32(x + i * k + j) * WIDEN(w + row[r] * k + j);
    UNROLLED for (int i = 0; i < M; i++)
      UNROLLED for (int r = 0; r < ROWS; r++) {
        UNROLLED for (int s = 1; s < SUMS; s++) sums[i][r][0] += sums[i][r][s];
        y[i * n + row[r]] = total(sums[i][r][0]);
      }
  }
}
