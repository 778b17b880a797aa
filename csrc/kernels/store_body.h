/* From int32 tile to output, once for all SIMD ISAs (see affine_f32_body.h). Formulas and order of the float
 * operations: qk_store_args in kernels.h and csrc/requant.h, which these vectors follow step by step. Columns come in
 * multiples of QK_STORE_COLUMNS, so there are no tails.
 */
#ifndef QK_STORE_BODY_H
#define QK_STORE_BODY_H

#include "kernels.h"

/* The exact accumulators of columns c.. of row i, modulo 2**32. */
static inline vi accumulator(const int32_t *sums, size_t i, size_t c, const qk_store_args *args,
                             const qk_store_rows *rows)
{
    vi acc = vi_add(vi_load(sums), vi_load(args->column_term + c));
    if (rows->row_sums)
        acc = vi_sub(acc, vi_mul(vi_set1(rows->row_sums[i]), vi_load(args->b_zero_point + c)));
    if (rows->a_zero_point)
        acc = vi_sub(acc, vi_mul(vi_set1(rows->a_zero_point[i]), vi_load(args->column_sums + c)));
    return acc;
}

static inline vf scaled(vi acc, float row_scale, size_t c, const qk_store_args *args)
{
    vf mult = vf_mul(vf_load(args->mult + c), vf_set1(row_scale));
    vf y = vf_add(vf_mul(vi_to_vf(acc), mult), vf_load(args->bias + c));
    return vf_clamp(y, vf_set1(args->low), vf_set1(args->high));
}

static inline vi quantized(vi acc, float row_scale, size_t c, const qk_store_args *args)
{
    return vi_add(vf_round(scaled(acc, row_scale, c, args)), vi_set1(args->zero_point));
}

/* qk_requant_fixed */
static inline vi requant_fixed(vi acc, vi mult, vi left, vi right)
{
    vi x = vi_shift_left(acc, left);
    vi overflow = vi_xor(vi_equal(vi_shift_right(x, left), acc), vi_set1(-1));
    vi extreme = vi_xor(vi_shift_right(acc, vi_set1(31)), vi_set1(INT32_MAX)); /* INT32_MIN where acc < 0 */
    vi h = vi_rounding_high_mul(vi_select(overflow, extreme, x), mult);
    vi mask = vi_sub(vi_shift_left(vi_set1(1), right), vi_set1(1));
    vi threshold = vi_sub(vi_shift_right(mask, vi_set1(1)), vi_greater(vi_set1(0), h)); /* + 1 where h < 0 */
    vi carry = vi_greater(vi_and(h, mask), threshold); /* -1 where rounded away from zero */
    return vi_sub(vi_shift_right(h, right), carry);
}

static inline vi fixed(vi acc, size_t c, const qk_store_args *args)
{
    vi q = requant_fixed(acc, vi_load(args->fixed_mult + c), vi_load(args->fixed_left + c),
                         vi_load(args->fixed_right + c));
    q = vi_min(vi_max(q, vi_set1(args->fixed_low)), vi_set1(args->fixed_high));
    return vi_add(q, vi_set1(args->zero_point));
}

/* Defines one store kernel: `put` stores LANES results to dst + j, from acc, row i and column c. */
#define QK_DEFINE_STORE(slot, isa, out_type, put)                                                            \
    void qk_##slot##_##isa(const int32_t *tile, size_t ld, size_t m, size_t n, const qk_store_args *args,    \
                           size_t column, const qk_store_rows *rows, void *out, size_t out_row_bytes)        \
    {                                                                                                        \
        for (size_t i = 0; i < m; i++) {                                                                     \
            const float row_scale = rows->row_scales ? rows->row_scales[i] : 1.0f;                           \
            out_type *dst = (out_type *)((char *)out + i * out_row_bytes);                                   \
            for (size_t j = 0; j < n; j += LANES) {                                                          \
                size_t c = column + j;                                                                       \
                vi acc = accumulator(tile + i * ld + j, i, c, args, rows);                                   \
                put;                                                                                         \
            }                                                                                                \
            (void)row_scale;                                                                                 \
        }                                                                                                    \
    }

#define QK_DEFINE_STORES(isa)                                                                                \
    QK_DEFINE_STORE(store_s32, isa, int32_t, vi_store(dst + j, acc))                                         \
    QK_DEFINE_STORE(store_f32, isa, float, vf_store(dst + j, scaled(acc, row_scale, c, args)))               \
    QK_DEFINE_STORE(store_q8, isa, uint8_t, vi_store_bytes(dst + j, quantized(acc, row_scale, c, args)))     \
    QK_DEFINE_STORE(store_q8_fixed, isa, uint8_t, vi_store_bytes(dst + j, fixed(acc, c, args)))

#endif
