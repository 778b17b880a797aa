/* IEEE 754 binary16, for compilers and CPUs without the type. */
#ifndef QK_FLOAT16_H
#define QK_FLOAT16_H

#include <stdint.h>

/* The float32 of a binary16 number, exact: the exponent is moved by 127 - 15, of numbers below 2**-14 by a
 * multiplication, since these have no leading one. */
static inline float qk_float_of_half(uint16_t half)
{
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    union {
        uint32_t bits;
        float x;
    } number = {magnitude >= 0x7c00u << 13 ? magnitude | 0x7f800000u : magnitude};
    if (magnitude < 0x7c00u << 13)
        number.x *= 0x1p112f;
    number.bits |= sign;
    return number.x;
}

#endif
