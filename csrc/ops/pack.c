/* Drivers of bit packing: row by row, and the range check from what the kernels saw. */
#include "kernels.h"

qk_status qk_pack_bits(const uint8_t *q, size_t rows, size_t n, int bits, int is_signed, int high_first, uint8_t *p)
{
    qk_pack_type *pack = bits == 1 ? qk_kernels.pack_u1 : bits == 2 ? qk_kernels.pack_u2 : qk_kernels.pack_u4;
    /* value + bias lies in [0, 2**bits) exactly when the value fits. */
    uint8_t bias = is_signed ? (uint8_t)(1 << (bits - 1)) : 0, seen = 0;
    for (size_t r = 0; r < rows; r++)
        seen |= pack(q + r * n, n, bias, high_first, p + r * ((n * (size_t)bits + 7) / 8));
    return seen >> bits ? QK_OUT_OF_RANGE : QK_OK;
}

void qk_unpack_bits(const uint8_t *p, size_t rows, size_t n, int bits, int is_signed, int high_first,
                         uint8_t *q)
{
    qk_unpack_type *unpack =
        bits == 1 ? qk_kernels.unpack_u1 : bits == 2 ? qk_kernels.unpack_u2 : qk_kernels.unpack_u4;
    for (size_t r = 0; r < rows; r++)
        unpack(p + r * ((n * (size_t)bits + 7) / 8), n, is_signed, high_first, q + r * n);
}
