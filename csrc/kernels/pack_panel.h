/* Packing one panel, for every GEMM kernel whose operands are bytes in groups of kr along k:
 *
 *      src, rows of k values            panel, kr = 4
 *      a00 a01 a02 a03 a04 ...          a00 a01 a02 a03 | a10 a11 a12 a13 | ...     <- step 0, all rows
 *      a10 a11 a12 a13 a14 ...          a04 a05 a06 a07 | a14 ...                   <- step 1
 *
 * A row of A and a column of B are the same thing here: `width` places of the panel, the first `count` of them
 * filled from src (byte strides `stride` from one to the next and `k_stride` along k), the rest zero. Included by
 * kernel files with constant kr, so that each ISA compiles its own copy.
 */
#ifndef QK_PACK_PANEL_H
#define QK_PACK_PANEL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int32_t byte_value(uint8_t byte, int is_signed)
{
    return is_signed ? (int8_t)byte : byte;
}

/* Sum of k contiguous flipped bytes, modulo 2**32. */
static inline int32_t sum_bytes(const uint8_t *x, size_t k, uint8_t flip, int is_signed)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < k; i++)
        sum += (uint32_t)byte_value(x[i] ^ flip, is_signed);
    return (int32_t)sum;
}

/* is_signed: how the flipped bytes count in the sums. */
static inline void pack_panel(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count,
                              size_t width, size_t k, size_t kr, uint8_t flip, int is_signed, uint8_t *panel,
                              int32_t *sums)
{
    const size_t step = width * kr, whole = k / kr * kr;

    if (count < width || whole < k)
        memset(panel, 0, (k + kr - 1) / kr * step);
    if (sums)
        memset(sums, 0, width * sizeof *sums);

    if (k_stride == 1) { /* each row is contiguous: move whole groups of kr */
        for (size_t i = 0; i < count; i++) {
            const uint8_t *row = src + (ptrdiff_t)i * stride;
            uint8_t *dst = panel + i * kr;
            for (size_t p = 0; p < whole; p += kr, dst += step)
                for (size_t j = 0; j < kr; j++)
                    dst[j] = row[p + j] ^ flip;
            for (size_t p = whole; p < k; p++)
                dst[p - whole] = row[p] ^ flip;
            if (sums)
                sums[i] = sum_bytes(row, k, flip, is_signed);
        }
        return;
    }
    for (size_t p = 0; p < k; p++) { /* walk along the rows' first axis, the contiguous one of a [K][N] B */
        const uint8_t *line = src + (ptrdiff_t)p * k_stride;
        uint8_t *dst = panel + p / kr * step + p % kr;
        for (size_t i = 0; i < count; i++) {
            uint8_t byte = line[(ptrdiff_t)i * stride] ^ flip;
            dst[i * kr] = byte;
            if (sums)
                sums[i] = (int32_t)((uint32_t)sums[i] + (uint32_t)byte_value(byte, is_signed));
        }
    }
}

/* The two packers of a descriptor, PREFIX_pack_a and PREFIX_pack_b, for bytes on both sides. */
#define QK_DEFINE_PACKERS(prefix, kr, nr, a_signed, b_signed)                                                \
    static void prefix##_pack_a(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count,     \
                                size_t k, uint8_t flip, void *panel, int32_t *sums)                          \
    {                                                                                                        \
        pack_panel(src, stride, k_stride, count, count, k, kr, flip, a_signed, panel, sums);                 \
    }                                                                                                        \
    static void prefix##_pack_b(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count,     \
                                size_t k, uint8_t flip, void *panel, int32_t *sums)                          \
    {                                                                                                        \
        pack_panel(src, stride, k_stride, count, nr, k, kr, flip, b_signed, panel, sums);                    \
    }

#endif
