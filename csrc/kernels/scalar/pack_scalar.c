/* 1, 2 and 4-bit fields, in plain C: the oracle of every SIMD version.
 *
 *      bits = 2, low_first:    byte = e3 e2 e1 e0        high_first:    byte = e0 e1 e2 e3        (top bit left)
 */
#include "kernels.h"

#include <string.h>

static inline unsigned shift_of(size_t i, unsigned bits, int high_first)
{
    unsigned place = i % (8 / bits);
    return bits * (high_first ? 8 / bits - 1 - place : place);
}

static inline uint8_t pack(const uint8_t *q, size_t n, uint8_t bias, int high_first, uint8_t *p, unsigned bits)
{
    const uint8_t mask = (uint8_t)((1u << bits) - 1);
    uint8_t seen = 0;
    memset(p, 0, (n * bits + 7) / 8);
    for (size_t i = 0; i < n; i++) {
        seen |= (uint8_t)(q[i] + bias);
        p[i * bits / 8] |= (uint8_t)((q[i] & mask) << shift_of(i, bits, high_first));
    }
    return seen;
}

static inline void unpack(const uint8_t *p, size_t n, int is_signed, int high_first, uint8_t *q, unsigned bits)
{
    const uint8_t mask = (uint8_t)((1u << bits) - 1), sign = is_signed ? (uint8_t)(1u << (bits - 1)) : 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t field = p[i * bits / 8] >> shift_of(i, bits, high_first) & mask;
        q[i] = (uint8_t)((field ^ sign) - sign);
    }
}

#define DEFINE(bits)                                                                                         \
    uint8_t qk_pack_u##bits##_scalar(const uint8_t *q, size_t n, uint8_t bias, int high_first, uint8_t *p)   \
    {                                                                                                        \
        return pack(q, n, bias, high_first, p, bits);                                                        \
    }                                                                                                        \
    void qk_unpack_u##bits##_scalar(const uint8_t *p, size_t n, int is_signed, int high_first, uint8_t *q)   \
    {                                                                                                        \
        unpack(p, n, is_signed, high_first, q, bits);                                                        \
    }

DEFINE(1)
DEFINE(2)
DEFINE(4)
