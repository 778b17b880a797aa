/* Block floating point, once for all SIMD ISAs (see affine_f32_body.h); the formulas, and why every step but the
 * first rounding is exact, are those of csrc/split.h. Tails use _part loads and stores. */
#ifndef QK_SPLIT_F32_BODY_H
#define QK_SPLIT_F32_BODY_H

#include "kernels.h"
#include "split.h"

/* max(largest, |x|), and whether x is a NaN or an infinity: ordered as integers, magnitudes are ordered as floats. */
static inline vi larger_magnitude(vi largest, vf x) { return vi_max(largest, vi_and(vf_bits(x), vi_set1(0x7fffffff))); }

static inline void split(vf x, vf per_step, vi digits[3])
{
    const vf value = vi_to_vf(vf_round(vf_mul(x, per_step)));
    digits[0] = vf_round(vf_mul(value, vf_set1(1.0f / QK_SPLIT_HIGH)));
    const vf rest = vf_sub(value, vf_mul(vi_to_vf(digits[0]), vf_set1(QK_SPLIT_HIGH)));
    digits[1] = vf_round(vf_mul(rest, vf_set1(1.0f / QK_SPLIT_MIDDLE)));
    digits[2] = vf_round(vf_sub(rest, vf_mul(vi_to_vf(digits[1]), vf_set1(QK_SPLIT_MIDDLE))));
}

#define QK_DEFINE_SPLIT(isa)                                                                                 \
    int qk_split_f32_##isa(const float *x, size_t n, size_t block, int8_t *const digits[3], float *scales,   \
                           size_t row_blocks)                                                                \
    {                                                                                                        \
        int32_t largest_of_all = 0;                                                                          \
        for (size_t at = 0, b = 0; at < n; at += block, b++) {                                               \
            const size_t end = n - at < block ? n : at + block;                                              \
            vi largest = vi_set1(0), part[3];                                                                \
            size_t k = at;                                                                                   \
            for (; k + LANES <= end; k += LANES)                                                             \
                largest = larger_magnitude(largest, vf_load(x + k));                                         \
            if (k < end)                                                                                     \
                largest = larger_magnitude(largest, vf_load_part(x + k, end - k));                           \
            const int32_t magnitude = vi_largest(largest);                                                   \
            largest_of_all = magnitude > largest_of_all ? magnitude : largest_of_all;                        \
            float largest_float;                                                                             \
            memcpy(&largest_float, &magnitude, sizeof largest_float);                                        \
            const float step = qk_split_step(largest_float);                                                 \
            const vf per_step = vf_set1(1.0f / step);                                                        \
            for (k = at; k + LANES <= end; k += LANES) {                                                     \
                split(vf_load(x + k), per_step, part);                                                       \
                for (int d = 0; d < 3; d++)                                                                  \
                    vi_store_bytes((uint8_t *)digits[d] + k, part[d]);                                       \
            }                                                                                                \
            if (k < end) {                                                                                   \
                split(vf_load_part(x + k, end - k), per_step, part);                                         \
                for (int d = 0; d < 3; d++)                                                                  \
                    vi_store_bytes_part((uint8_t *)digits[d] + k, part[d], end - k);                         \
            }                                                                                                \
            scales[b] = step * QK_SPLIT_HIGH;                                                                \
            scales[row_blocks + b] = step * QK_SPLIT_MIDDLE;                                                 \
            scales[2 * row_blocks + b] = step;                                                               \
        }                                                                                                    \
        return largest_of_all >= 0x7f800000;                                                                 \
    }

#endif
