/* From int32 tile to output, in plain C: the oracle of every SIMD version. Formulas: qk_store_args in kernels.h. */
#include "kernels.h"
#include "requant.h"

/* The exact accumulator of row i, column j of the tile (column c of the product), modulo 2**32. */
static inline int32_t accumulator(int32_t sum, size_t i, size_t c, const qk_store_args *args,
                                  const qk_store_rows *rows)
{
    uint32_t acc = (uint32_t)sum + (uint32_t)args->column_term[c];
    if (rows->row_sums)
        acc -= (uint32_t)rows->row_sums[i] * (uint32_t)args->b_zero_point[c];
    if (rows->a_zero_point)
        acc -= (uint32_t)rows->a_zero_point[i] * (uint32_t)args->column_sums[c];
    return (int32_t)acc;
}

static inline float scaled(int32_t acc, size_t i, size_t c, const qk_store_args *args, const qk_store_rows *rows)
{
    float mult = rows->row_scales ? args->mult[c] * rows->row_scales[i] : args->mult[c];
    return qk_clamp_f32((float)acc * mult + args->bias[c], args->low, args->high);
}

/* Defines one store kernel: `value` is computed from `acc`, row `i` and column `c`. */
#define DEFINE(slot, out_type, value)                                                                        \
    void qk_##slot##_scalar(const int32_t *tile, size_t ld, size_t m, size_t n, const qk_store_args *args,   \
                            size_t column, const qk_store_rows *rows, void *out, size_t out_row_bytes)       \
    {                                                                                                        \
        for (size_t i = 0; i < m; i++) {                                                                     \
            out_type *dst = (out_type *)((char *)out + i * out_row_bytes);                                   \
            for (size_t j = 0; j < n; j++) {                                                                 \
                size_t c = column + j;                                                                       \
                int32_t acc = accumulator(tile[i * ld + j], i, c, args, rows);                               \
                dst[j] = (out_type)(value);                                                                  \
            }                                                                                                \
        }                                                                                                    \
    }

DEFINE(store_s32, int32_t, acc)
DEFINE(store_f32, float, scaled(acc, i, c, args, rows))
DEFINE(store_q8, uint8_t, qk_round_s32(scaled(acc, i, c, args, rows)) + args->zero_point)
DEFINE(store_q8_fixed, uint8_t,
       qk_clamp_s32(qk_requant_fixed(acc, args->fixed_mult[c], args->fixed_left[c], args->fixed_right[c]),
                    args->fixed_low, args->fixed_high) +
           args->zero_point)
