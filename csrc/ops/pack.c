/* Drivers of bit packing: row by row, long rows in pieces, and the range check from what the kernels saw. */
#include "calls.h"
#include "kernels.h"
#include "ops/sizes.h"

enum { PIECE = 1 << 16 /* values, whole bytes of them */ };

qk_status qk_pack_bits(const uint8_t *q, size_t rows, size_t n, int bits, int is_signed, int high_first, uint8_t *p)
{
    QK_CALL;
    qk_pack_type *pack = bits == 1 ? qk_kernels.pack_u1 : bits == 2 ? qk_kernels.pack_u2 : qk_kernels.pack_u4;
    const size_t row_bytes = (n * (size_t)bits + 7) / 8;
    /* value + bias lies in [0, 2**bits) exactly when the value fits. */
    uint8_t bias = is_signed ? (uint8_t)(1 << (bits - 1)) : 0, seen = 0;
    size_t work = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i += PIECE) {
            seen |= pack(q + r * n + i, least(n - i, PIECE), bias, high_first, p + r * row_bytes + i / 8 * (size_t)bits);
            if (qk_interrupted_after(&work, least(n - i, PIECE)))
                return QK_INTERRUPTED;
        }
    return seen >> bits ? QK_OUT_OF_RANGE : QK_OK;
}

qk_status qk_unpack_bits(const uint8_t *p, size_t rows, size_t n, int bits, int is_signed, int high_first, uint8_t *q)
{
    QK_CALL;
    qk_unpack_type *unpack =
        bits == 1 ? qk_kernels.unpack_u1 : bits == 2 ? qk_kernels.unpack_u2 : qk_kernels.unpack_u4;
    const size_t row_bytes = (n * (size_t)bits + 7) / 8;
    size_t work = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i += PIECE) {
            unpack(p + r * row_bytes + i / 8 * (size_t)bits, least(n - i, PIECE), is_signed, high_first, q + r * n + i);
            if (qk_interrupted_after(&work, least(n - i, PIECE)))
                return QK_INTERRUPTED;
        }
    return QK_OK;
}
