/* acc[m][n] += a[m][k] * b[k][n], uint8 x int8 -> int32 by vpdpbusd, once for both vector widths. A kernel file
 * includes its vocabulary, defines MR and vi_dpbusd, includes this file and lists its tile heights.
 *
 * Layout: kr = 4.   A panel, uint8: k 0..3 of row 0 | k 0..3 of row 1 | ...        one 32-bit broadcast a row
 *                   B panel, int8:  k 0..3 of column 0 | ... | of column 2 * LANES - 1     two vectors a step
 * Trick: vpdpbusd wants its first operand unsigned. Signed A is flipped by xor 0x80 while packing, which adds 128 to
 * every value and to the zero point; the driver takes 128 * column_sums off again.
 * Overflow: vpdpbusd (not vpdpbusds) wraps modulo 2**32; raw sums are exact for k <= 65793 (255 * 128 * k < 2**31),
 * beyond which the driver splits k.
 * Tails: rows by tile bodies of every height, columns and k by the packers' zeros.
 */
#ifndef QK_GEMM_VNNI_BODY_H
#define QK_GEMM_VNNI_BODY_H

#include <string.h>

#include "kernels.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

enum { NR = 2 * LANES, KR = 4 };

QK_DEFINE_PACKERS(vnni, KR, NR, 0, 1)

/* One step of kr = 4: add the products of m rows and NR columns. */
QK_INLINE void add_step(vi (*acc)[2], const uint8_t *a, const int8_t *b, const size_t m)
{
    vi b0 = vi_load((const int32_t *)b), b1 = vi_load((const int32_t *)b + LANES);
    QK_UNROLL16(i, m, {
        int32_t group;
        memcpy(&group, a + i * KR, sizeof group);
        vi a_broadcast = vi_set1(group);
        acc[i][0] = vi_dpbusd(acc[i][0], a_broadcast, b0);
        acc[i][1] = vi_dpbusd(acc[i][1], a_broadcast, b1);
    })
}

/* m rows; with few of them, `chains` independent sums over interleaved steps hide the latency of vpdpbusd. */
QK_INLINE void tile_rows(const uint8_t *a, const int8_t *b, const size_t m, const size_t chains, size_t k_steps,
                         int32_t *tile)
{
    vi acc[4][16][2]; /* as far as the unrolled loops are written; what exceeds chains and m does not exist */
    QK_UNROLL4(c, chains, QK_UNROLL16(i, m, acc[c][i][0] = acc[c][i][1] = vi_set1(0);))

    size_t step = 0;
    for (; step + chains <= k_steps; step += chains) {
        QK_UNROLL4(c, chains, add_step(acc[c], a + c * m * KR, b + c * NR * KR, m);)
        a += chains * m * KR;
        b += chains * NR * KR;
    }
    /* gcc would start the next loop's products in this one, and copy every sum once a step for it. */
    QK_UNROLL4(c, chains, QK_UNROLL16(i, m, {
        QK_OPAQUE(acc[c][i][0]);
        QK_OPAQUE(acc[c][i][1]);
    }))
    if (chains > 1)
        for (; step < k_steps; step++, a += m * KR, b += NR * KR)
            add_step(acc[0], a, b, m);

    QK_UNROLL4(c, chains, if (c > 0) {
        QK_UNROLL16(i, m, {
            acc[0][i][0] = vi_add(acc[0][i][0], acc[c][i][0]);
            acc[0][i][1] = vi_add(acc[0][i][1], acc[c][i][1]);
        })
    })
    QK_UNROLL16(i, m, {
        vi_store(tile + i * NR, acc[0][i][0]);
        vi_store(tile + i * NR + LANES, acc[0][i][1]);
    })
}

static uint64_t peak(uint64_t rounds)
{
    enum { PARALLEL = 12 }; /* more than latency times ports */
    vi acc[16], x = vi_set1(0x01010101);
    QK_UNROLL16(c, PARALLEL, {
        acc[c] = x;
        QK_OPAQUE(acc[c]); /* or the compiler would see that all are equal */
    })
    for (uint64_t r = 0; r < rounds; r++) {
        QK_UNROLL16(c, PARALLEL, acc[c] = vi_dpbusd(acc[c], x, x);)
    }
    QK_UNROLL16(c, PARALLEL, QK_OPAQUE(acc[c]);)
    return rounds * PARALLEL * LANES * KR;
}

/* The descriptor; HEIGHTS(X) lists X(m, chains) for m = 1 .. MR. */
#define QK_VNNI_CASE(m, chains)                                                                              \
    case m: tile_rows(a, b, m, chains, k_steps, tile); break;

#define QK_DEFINE_GEMM_VNNI(isa, HEIGHTS)                                                                    \
    static void run(const void *a, const void *b, size_t m, size_t k_steps, int32_t *tile)                   \
    {                                                                                                        \
        switch (m) {                                                                                         \
            HEIGHTS(QK_VNNI_CASE)                                                                            \
        }                                                                                                    \
    }                                                                                                        \
    qk_gemm_s8_type qk_gemm_s8_##isa = {                                                                     \
        .mr = MR, .nr = NR, .kr = KR, .a_bytes = 1, .a_signed = 0, .b_signed = 1,                            \
        .pack_a = vnni_pack_a, .pack_b = vnni_pack_b, .run = run, .peak = peak,                              \
    };

#endif
