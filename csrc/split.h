/* Taking floats apart into digits of 8 bits (qk_split_f32_type in kernels.h):
 *
 *      value = round(x / step)        high = round(value / 64516)        rest = value - 64516 high
 *                                     middle = round(rest / 254)         low = rest - 254 middle
 *
 * all in float32. step is a power of two and |value| < 2**23, so that only the first rounding loses anything; a quotient
 * is a product with the float32 inverse, which is off by far less than what the next digit has room for.
 */
#ifndef QK_SPLIT_H
#define QK_SPLIT_H

#include <stdint.h>
#include <string.h>

#define QK_SPLIT_HIGH 64516.0f /* 254 * 254 */
#define QK_SPLIT_MIDDLE 254.0f

/* The power of two, 2**-126 or more, in whose steps the values of a block are counted: the least for which
 * `largest` is at most 127.5 * 64516 - 1 = 8225789 = 1.96118 * 2**22 steps; one more, and the high digit would be
 * rounded to 128. Half a step is less than largest / 2**22.9, unless it is 2**-127. */
static inline float qk_split_step(float largest)
{
    const uint32_t room = 0x800000 - 8062970; /* 8062970: the fraction of 1.96118; a larger one carries */
    uint32_t bits;
    memcpy(&bits, &largest, sizeof bits);
    const int32_t exponent = (int32_t)((bits + room - 1) >> 23) - 127 - 22;
    bits = (uint32_t)(exponent < -126 ? 1 : exponent + 127) << 23;
    float step;
    memcpy(&step, &bits, sizeof step);
    return step;
}

#endif
