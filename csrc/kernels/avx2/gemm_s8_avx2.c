/* acc[m][n] += a[m][k] * b[k][n], int8 x int8 -> int32, exact on AVX2.
 *
 * Trick: vpmaddubsw, the obvious byte multiply, saturates its int16 pair sums (255 * 127 * 2 > 32767), so both sides
 * are widened to int16 and multiplied by vpmaddwd, whose int32 pair sums cannot overflow (2 * 128 * 128). A is widened
 * once, while packing; B stays in bytes, which halves its traffic, and is widened by vpmovsxbw as it is loaded, once
 * for all the rows of the tile.
 *
 * Layout: kr = 2.   A panel, int16: k 0,1 of row 0 | k 0,1 of row 1 | ...      one 32-bit broadcast a row
 *                   B panel, int8:  k 0,1 of column 0 | ... | k 0,1 of column 15    32 bytes a step
 * Registers (6 x 16): 12 accumulators, 2 of B, 1 broadcast of A, 1 product = 16.
 * Overflow: acc wraps modulo 2**32; it is exact for k <= 131071, beyond which the driver splits k.
 * Tails: rows by tile bodies of 1 to 6 rows, columns and k by the packers' zeros.
 */
#include "kernels.h"
#include "kernels/avx2/simd_avx2.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

enum { MR = 6, NR = 16, KR = 2 };

/* Bytes to int16, [k_steps][count][2]. */
QK_INLINE void widen_rows(const uint8_t *src, ptrdiff_t stride, const ptrdiff_t k_stride, size_t count, size_t k,
                          uint8_t flip, int16_t *panel, int32_t *sums)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = src + (ptrdiff_t)i * stride;
        int16_t *dst = panel + i * KR;
        uint32_t sum = 0;
        for (size_t p = 0; p < k; p += KR, dst += count * KR) {
            int16_t even = (int8_t)(row[(ptrdiff_t)p * k_stride] ^ flip);
            int16_t odd = p + 1 < k ? (int8_t)(row[(ptrdiff_t)(p + 1) * k_stride] ^ flip) : 0;
            dst[0] = even;
            dst[1] = odd;
            sum += (uint32_t)(even + odd);
        }
        if (sums)
            sums[i] = (int32_t)sum;
    }
}

static void pack_a(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, int32_t *sums)
{
    if (k_stride == 1)
        widen_rows(src, stride, 1, count, k, flip, panel, sums);
    else
        widen_rows(src, stride, k_stride, count, k, flip, panel, sums);
}

static void pack_b(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, int32_t *sums)
{
    pack_panel(src, stride, k_stride, count, NR, k, KR, flip, 1, panel, sums);
}

static inline __m256i widen_s16x16(const int8_t *b)
{
    return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)b));
}

/* One step of kr = 2: add the products of m rows and 16 columns. */
QK_INLINE void add_step(__m256i (*acc_s32x8)[2], const int16_t *a, const int8_t *b, const size_t m)
{
    __m256i b0_s16x16 = widen_s16x16(b), b1_s16x16 = widen_s16x16(b + 16);
    QK_UNROLL8(i, m, {
        int32_t pair;
        memcpy(&pair, a + i * KR, sizeof pair);
        __m256i a_s16x16 = _mm256_set1_epi32(pair);
        acc_s32x8[i][0] = _mm256_add_epi32(acc_s32x8[i][0], _mm256_madd_epi16(a_s16x16, b0_s16x16));
        acc_s32x8[i][1] = _mm256_add_epi32(acc_s32x8[i][1], _mm256_madd_epi16(a_s16x16, b1_s16x16));
    })
}

/* m rows. The adds have a latency of one cycle, so that even one row needs no second set of sums. */
QK_INLINE void tile_rows(const int16_t *a, const int8_t *b, const size_t m, size_t k_steps, int32_t *tile)
{
    __m256i acc_s32x8[8][2]; /* as far as the unrolled loops are written; what exceeds m does not exist */
    QK_UNROLL8(i, m, acc_s32x8[i][0] = acc_s32x8[i][1] = _mm256_setzero_si256();)
    for (size_t step = 0; step < k_steps; step++, a += m * KR, b += NR * KR)
        add_step(acc_s32x8, a, b, m);
    QK_UNROLL8(i, m, {
        vi_store(tile + i * NR, acc_s32x8[i][0]);
        vi_store(tile + i * NR + LANES, acc_s32x8[i][1]);
    })
}

static void run(const void *a, const void *b, size_t m, size_t k_steps, int32_t *tile)
{
    QK_UNROLL8(i, MR, if (m == i + 1) tile_rows(a, b, i + 1, k_steps, tile);)
}

static uint64_t peak(uint64_t rounds)
{
    enum { PARALLEL = 12 };
    __m256i acc_s32x8[16], x_s16x16 = _mm256_set1_epi16(1);
    QK_UNROLL16(c, PARALLEL, acc_s32x8[c] = x_s16x16;)
    for (uint64_t r = 0; r < rounds; r++) {
        QK_UNROLL16(c, PARALLEL, {
            QK_OPAQUE(x_s16x16); /* or the product would be taken out of the loop */
            acc_s32x8[c] = _mm256_add_epi32(acc_s32x8[c], _mm256_madd_epi16(x_s16x16, x_s16x16));
        })
    }
    QK_UNROLL16(c, PARALLEL, QK_OPAQUE(acc_s32x8[c]);)
    return rounds * PARALLEL * LANES * KR;
}

qk_gemm_s8_type qk_gemm_s8_avx2 = {
    .mr = MR, .nr = NR, .kr = KR, .a_bytes = 2, .a_signed = 1, .b_signed = 1,
    .pack_a = pack_a, .pack_b = pack_b, .run = run, .peak = peak,
};
