/* 1, 2 and 4-bit fields. The picture of their order is in kernels/scalar/pack_scalar.c.
 *
 * Trick: a structured load (ld2, ld4) deals neighbors out to different registers, so that the fields of a byte stand in
 * one lane of several registers; sli shifts one over the other and keeps the low bits of the other:
 *
 *      ld2:  v0 = e0 e2 ...  v1 = e1 e3 ...                    4 bits:  byte = sli(v0, v1, 4)
 *      ld4:  v0 = e0 e4 ...  v1 = e1 e5 ...  v2 = ...          2 bits:  byte = sli(sli(v0, v1, 2), sli(v2, v3, 2), 4)
 *      1 bit: four registers give nibbles, sli(sli(v0, v1, 1), sli(v2, v3, 1), 2), and neighboring nibbles (uzp1,
 *      uzp2) a byte.
 *
 * Masks are not needed: what a value has above its field is shifted out or overwritten. Unpacking goes the same way
 * back. high_first takes the registers in reverse order.
 * Tails: a last block is padded, or cut, on the stack.
 */
#include "kernels.h"
#include "kernels/neon/simd_neon.h"

enum { BLOCK_BYTES = 16, MAX_BLOCK = 8 * BLOCK_BYTES }; /* of packed bytes, and their most values */

/* -------------------------------------------------------------------------------------------------- packing */

/* Two fields that follow one another, side by side; `bits` is a literal. */
#define JOIN(bits, first, second, high_first)                                                                \
    ((high_first) ? vsliq_n_u8(second, first, bits) : vsliq_n_u8(first, second, bits))

QK_INLINE uint8x16_t pack_block_u4(const uint8_t *q, uint8x16_t bias, const int high_first, uint8x16_t *seen)
{
    uint8x16x2_t v = vld2q_u8(q);
    *seen = vorrq_u8(*seen, vorrq_u8(vaddq_u8(v.val[0], bias), vaddq_u8(v.val[1], bias)));
    return JOIN(4, v.val[0], v.val[1], high_first);
}

static inline uint8x16x4_t load_fours(const uint8_t *q, uint8x16_t bias, uint8x16_t *seen)
{
    uint8x16x4_t v = vld4q_u8(q);
    uint8x16_t seen01 = vorrq_u8(vaddq_u8(v.val[0], bias), vaddq_u8(v.val[1], bias));
    uint8x16_t seen23 = vorrq_u8(vaddq_u8(v.val[2], bias), vaddq_u8(v.val[3], bias));
    *seen = vorrq_u8(*seen, vorrq_u8(seen01, seen23));
    return v;
}

QK_INLINE uint8x16_t pack_block_u2(const uint8_t *q, uint8x16_t bias, const int high_first, uint8x16_t *seen)
{
    uint8x16x4_t v = load_fours(q, bias, seen);
    uint8x16_t nibble01 = JOIN(2, v.val[0], v.val[1], high_first);
    uint8x16_t nibble23 = JOIN(2, v.val[2], v.val[3], high_first);
    return JOIN(4, nibble01, nibble23, high_first);
}

QK_INLINE uint8x16_t pack_nibbles_u1(const uint8_t *q, uint8x16_t bias, const int high_first, uint8x16_t *seen)
{
    uint8x16x4_t v = load_fours(q, bias, seen);
    uint8x16_t pair01 = JOIN(1, v.val[0], v.val[1], high_first);
    uint8x16_t pair23 = JOIN(1, v.val[2], v.val[3], high_first);
    return JOIN(2, pair01, pair23, high_first);
}

QK_INLINE uint8x16_t pack_block_u1(const uint8_t *q, uint8x16_t bias, const int high_first, uint8x16_t *seen)
{
    uint8x16_t left = pack_nibbles_u1(q, bias, high_first, seen);
    uint8x16_t right = pack_nibbles_u1(q + 4 * BLOCK_BYTES, bias, high_first, seen);
    return JOIN(4, vuzp1q_u8(left, right), vuzp2q_u8(left, right), high_first);
}

typedef uint8x16_t pack_block_type(const uint8_t *q, uint8x16_t bias, const int high_first, uint8x16_t *seen);

QK_INLINE uint8_t pack(const uint8_t *q, size_t n, uint8_t bias, const int high_first, uint8_t *p,
                       const unsigned bits, pack_block_type *pack_block)
{
    const size_t block = MAX_BLOCK / bits;
    const uint8x16_t bias_u8x16 = vdupq_n_u8(bias);
    uint8x16_t seen_u8x16 = vdupq_n_u8(0);
    for (; n >= block; n -= block, q += block, p += BLOCK_BYTES)
        vst1q_u8(p, pack_block(q, bias_u8x16, high_first, &seen_u8x16));
    uint8_t seen = 0;
    if (n > 0) {
        uint8_t padded[MAX_BLOCK] = {0}, packed[BLOCK_BYTES];
        uint8x16_t seen_with_padding = seen_u8x16;
        for (size_t i = 0; i < n; i++) {
            padded[i] = q[i];
            seen |= (uint8_t)(q[i] + bias);
        }
        vst1q_u8(packed, pack_block(padded, bias_u8x16, high_first, &seen_with_padding));
        memcpy(p, packed, (n * bits + 7) / 8);
    }
    uint8_t lanes[16];
    vst1q_u8(lanes, seen_u8x16);
    for (size_t i = 0; i < sizeof lanes; i++)
        seen |= lanes[i];
    return seen;
}

/* ------------------------------------------------------------------------------------------------ unpacking */

/* The field at `place`, counted from the low end of each byte; `bits` and `place` are literals. */
#define FIELD(bits, place, p, is_signed)                                                                     \
    ((is_signed) ? vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(ON_TOP(bits, place, p)), 8 - (bits)))  \
                 : vshrq_n_u8(ON_TOP(bits, place, p), 8 - (bits)))
#define ON_TOP(bits, place, p) vshlq_n_u8(p, 8 - (bits) * ((place) + 1))

QK_INLINE void unpack_block_u4(uint8x16_t p, const int is_signed, const int high_first, uint8_t *q)
{
    uint8x16_t low = FIELD(4, 0, p, is_signed), high = FIELD(4, 1, p, is_signed);
    uint8x16x2_t v = {{high_first ? high : low, high_first ? low : high}};
    vst2q_u8(q, v);
}

static inline void store_fours(uint8_t *q, uint8x16_t v0, uint8x16_t v1, uint8x16_t v2, uint8x16_t v3,
                               const int high_first)
{
    uint8x16x4_t v = {{high_first ? v3 : v0, high_first ? v2 : v1, high_first ? v1 : v2, high_first ? v0 : v3}};
    vst4q_u8(q, v);
}

QK_INLINE void unpack_block_u2(uint8x16_t p, const int is_signed, const int high_first, uint8_t *q)
{
    store_fours(q, FIELD(2, 0, p, is_signed), FIELD(2, 1, p, is_signed), FIELD(2, 2, p, is_signed),
                FIELD(2, 3, p, is_signed), high_first);
}

/* Of the low nibbles. */
QK_INLINE void unpack_nibbles_u1(uint8x16_t p, const int is_signed, const int high_first, uint8_t *q)
{
    store_fours(q, FIELD(1, 0, p, is_signed), FIELD(1, 1, p, is_signed), FIELD(1, 2, p, is_signed),
                FIELD(1, 3, p, is_signed), high_first);
}

QK_INLINE void unpack_block_u1(uint8x16_t p, const int is_signed, const int high_first, uint8_t *q)
{
    uint8x16_t high = vshrq_n_u8(p, 4);
    uint8x16_t first = high_first ? high : p, second = high_first ? p : high;
    unpack_nibbles_u1(vzip1q_u8(first, second), is_signed, high_first, q);
    unpack_nibbles_u1(vzip2q_u8(first, second), is_signed, high_first, q + 4 * BLOCK_BYTES);
}

typedef void unpack_block_type(uint8x16_t p, const int is_signed, const int high_first, uint8_t *q);

QK_INLINE void unpack(const uint8_t *p, size_t n, const int is_signed, const int high_first, uint8_t *q,
                      const unsigned bits, unpack_block_type *unpack_block)
{
    const size_t block = MAX_BLOCK / bits;
    for (; n >= block; n -= block, q += block, p += BLOCK_BYTES)
        unpack_block(vld1q_u8(p), is_signed, high_first, q);
    if (n > 0) {
        uint8_t packed[BLOCK_BYTES] = {0}, values[MAX_BLOCK];
        memcpy(packed, p, (n * bits + 7) / 8);
        unpack_block(vld1q_u8(packed), is_signed, high_first, values);
        memcpy(q, values, n);
    }
}

/* One loop for each value of the flags, which are constants inside it. */
#define DEFINE(bits)                                                                                         \
    uint8_t qk_pack_u##bits##_neon(const uint8_t *q, size_t n, uint8_t bias, int high_first, uint8_t *p)     \
    {                                                                                                        \
        return high_first ? pack(q, n, bias, 1, p, bits, pack_block_u##bits)                                 \
                          : pack(q, n, bias, 0, p, bits, pack_block_u##bits);                                \
    }                                                                                                        \
    void qk_unpack_u##bits##_neon(const uint8_t *p, size_t n, int is_signed, int high_first, uint8_t *q)     \
    {                                                                                                        \
        if (is_signed)                                                                                       \
            high_first ? unpack(p, n, 1, 1, q, bits, unpack_block_u##bits)                                   \
                       : unpack(p, n, 1, 0, q, bits, unpack_block_u##bits);                                  \
        else                                                                                                 \
            high_first ? unpack(p, n, 0, 1, q, bits, unpack_block_u##bits)                                   \
                       : unpack(p, n, 0, 0, q, bits, unpack_block_u##bits);                                  \
    }

DEFINE(1)
DEFINE(2)
DEFINE(4)
