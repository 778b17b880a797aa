/* Packing one panel, for every GEMM kernel whose operands are bytes in groups of kr along k:
 *
 *      src, rows of k values            panel, kr = 4
 *      a00 a01 a02 a03 a04 ...          a00 a01 a02 a03 | a10 a11 a12 a13 | ...     <- step 0, all rows
 *      a10 a11 a12 a13 a14 ...          a04 a05 a06 a07 | a14 ...                   <- step 1
 *
 * A row of A and a column of B are the same thing here: `width` places of the panel, the first `count` of them
 * filled from src (byte strides `stride` from one to the next and `k_stride` along k), the rest zero. Bytes are moved
 * in words of WORD = min(kr, 4). Included by kernel files with constant kr, so that each ISA compiles, and the
 * compiler vectorizes, its own copy.
 */
#ifndef QK_PACK_PANEL_H
#define QK_PACK_PANEL_H

#include <string.h>

#include "kernels.h"

static inline int32_t byte_value(uint8_t byte, int is_signed)
{
    return is_signed ? (int8_t)byte : byte;
}

/* sums[i] += line[i] for contiguous places, modulo 2**32. */
static inline void add_line(int32_t *sums, const uint8_t *line, size_t count, uint8_t flip, int is_signed)
{
    for (size_t i = 0; i < count; i++)
        sums[i] = (int32_t)((uint32_t)sums[i] + (uint32_t)byte_value(line[i] ^ flip, is_signed));
}

/* Sum of k contiguous flipped bytes, modulo 2**32. */
static inline int32_t sum_bytes(const uint8_t *x, size_t k, uint8_t flip, int is_signed)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < k; i++)
        sum += (uint32_t)byte_value(x[i] ^ flip, is_signed);
    return (int32_t)sum;
}

/* Rows that are contiguous along k: whole words at once. */
QK_INLINE void pack_rows(const uint8_t *src, ptrdiff_t stride, size_t count, size_t width, size_t k, const size_t kr,
                         uint8_t flip, uint8_t *panel)
{
    const size_t word_bytes = kr < 4 ? kr : 4, whole = k / kr * kr;
    const uint32_t flip_word = flip * 0x01010101u;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = src + (ptrdiff_t)i * stride;
        uint8_t *dst = panel + i * kr;
        for (size_t p = 0; p < whole; p += kr, dst += width * kr)
            for (size_t w = 0; w < kr; w += word_bytes) {
                uint32_t word;
                memcpy(&word, row + p + w, word_bytes);
                word ^= flip_word;
                memcpy(dst + w, &word, word_bytes);
            }
        for (size_t p = whole; p < k; p++)
            dst[p - whole] = row[p] ^ flip;
    }
}

/* Places that are contiguous along the other axis, as the columns of a [K][N] B: interleave word_bytes lines. */
QK_INLINE void pack_lines(const uint8_t *src, ptrdiff_t k_stride, size_t count, size_t width, size_t k,
                          const size_t kr, uint8_t flip, uint8_t *panel)
{
    const size_t word_bytes = kr < 4 ? kr : 4, whole = k / word_bytes * word_bytes;
    const uint32_t flip_word = flip * 0x01010101u;
    for (size_t p = 0; p < whole; p += word_bytes) {
        const uint8_t *line = src + (ptrdiff_t)p * k_stride;
        uint8_t *dst = panel + p / kr * kr * width + p % kr;
        for (size_t i = 0; i < count; i++) {
            uint32_t word = 0;
            for (size_t w = 0; w < word_bytes; w++)
                word |= (uint32_t)line[(ptrdiff_t)w * k_stride + (ptrdiff_t)i] << 8 * w;
            word ^= flip_word;
            memcpy(dst + i * kr, &word, word_bytes);
        }
    }
    for (size_t p = whole; p < k; p++)
        for (size_t i = 0; i < count; i++)
            panel[p / kr * kr * width + i * kr + p % kr] = src[(ptrdiff_t)p * k_stride + (ptrdiff_t)i] ^ flip;
}

/* is_signed: how the flipped bytes count in the sums. */
QK_INLINE void pack_panel(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t width,
                          size_t k, const size_t kr, uint8_t flip, const int is_signed, uint8_t *panel,
                          int32_t *sums)
{
    if (count < width || k % kr)
        memset(panel, 0, (k + kr - 1) / kr * kr * width);
    if (sums)
        memset(sums, 0, width * sizeof *sums);

    if (k_stride == 1) {
        pack_rows(src, stride, count, width, k, kr, flip, panel);
        for (size_t i = 0; sums && i < count; i++)
            sums[i] = sum_bytes(src + (ptrdiff_t)i * stride, k, flip, is_signed);
        return;
    }
    if (stride == 1) {
        pack_lines(src, k_stride, count, width, k, kr, flip, panel);
        for (size_t p = 0; sums && p < k; p++)
            add_line(sums, src + (ptrdiff_t)p * k_stride, count, flip, is_signed);
        return;
    }
    for (size_t i = 0; i < count; i++)
        for (size_t p = 0; p < k; p++) {
            uint8_t byte = src[(ptrdiff_t)i * stride + (ptrdiff_t)p * k_stride] ^ flip;
            panel[p / kr * kr * width + i * kr + p % kr] = byte;
            if (sums)
                add_line(sums + i, &byte, 1, 0, is_signed);
        }
}

/* The two packers of a descriptor, PREFIX_pack_a and PREFIX_pack_b, for bytes on both sides. */
#define QK_DEFINE_PACKERS(prefix, kr, nr, a_signed, b_signed)                                                \
    static void prefix##_pack_a(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count,     \
                                size_t k, uint8_t flip, void *panel, size_t a_stride, int32_t *sums)         \
    {                                                                                                        \
        (void)a_stride;                                                                                      \
        pack_panel(src, stride, k_stride, count, count, k, kr, flip, a_signed, panel, sums);                 \
    }                                                                                                        \
    static void prefix##_pack_b(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count,     \
                                size_t k, uint8_t flip, void *panel, int32_t *sums)                          \
    {                                                                                                        \
        pack_panel(src, stride, k_stride, count, nr, k, kr, flip, b_signed, panel, sums);                    \
    }

#endif
