/* Block floating point: a block of floats as three digits each, on a common power of two (qk_split_f32_type). In
 * steps of it a value is an integer of at most 23 bits, taken apart in base 254, whose digits lie in [-127, 127]. */
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "requant.h"
#include "split.h"

int qk_split_f32_scalar(const float *x, size_t n, size_t block, int8_t *const digits[3], float *scales,
                        size_t row_blocks)
{
    int bad = 0;
    for (size_t at = 0, b = 0; at < n; at += block, b++) {
        const size_t end = n - at < block ? n : at + block;
        float largest = 0.0f;
        for (size_t k = at; k < end; k++) {
            const float magnitude = fabsf(x[k]);
            bad |= !(magnitude <= 3.402823466e38f);
            largest = magnitude > largest ? magnitude : largest;
        }
        const float step = qk_split_step(largest), per_step = 1.0f / step; /* a power of two, so exact */
        for (size_t k = at; k < end; k++) {
            const float value = bad ? 0.0f : (float)qk_round_s32(x[k] * per_step);
            const float high = (float)qk_round_s32(value * (1.0f / QK_SPLIT_HIGH));
            const float rest = value - high * QK_SPLIT_HIGH;
            const float middle = (float)qk_round_s32(rest * (1.0f / QK_SPLIT_MIDDLE));
            digits[0][k] = (int8_t)high;
            digits[1][k] = (int8_t)middle;
            digits[2][k] = (int8_t)(rest - middle * QK_SPLIT_MIDDLE);
        }
        scales[b] = step * QK_SPLIT_HIGH;
        scales[row_blocks + b] = step * QK_SPLIT_MIDDLE;
        scales[2 * row_blocks + b] = step;
    }
    return bad;
}
