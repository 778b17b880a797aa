/* The Viterbi algorithm on the bitshift trellis (qk_viterbi_f32_type, csrc/trellis.h). */
#include "kernels.h"

void qk_viterbi_f32_scalar(const qk_trellis *trellis, const float *x, size_t steps, ptrdiff_t overlap, void *scratch,
                           uint16_t *path)
{
    const size_t overlaps = qk_trellis_overlaps(trellis), columns = qk_trellis_columns(trellis);
    float *before = scratch, *after = before + qk_trellis_costs(trellis);
    uint8_t *symbols = (uint8_t *)(after + qk_trellis_costs(trellis));

    qk_trellis_start(trellis, overlap, before);
    for (size_t p = 0; p < steps; p++) {
        for (size_t q = 0; q < overlaps; q++) {
            float least = 0.0f;
            for (size_t symbol = 0; symbol < (size_t)1 << trellis->bits; symbol++) {
                const float d = x[p] - trellis->levels[qk_trellis_place(trellis, q, symbol)];
                float cost = before[(q << trellis->bits | symbol) % overlaps] + d * d;
                cost = qk_trellis_marked(cost, symbol, trellis->bits);
                if (symbol == 0 || cost < least) {
                    least = cost;
                    symbols[p * columns + q] = (uint8_t)symbol;
                }
            }
            after[q] = least;
        }
        float *swapped = before;
        before = after;
        after = swapped;
    }
    qk_trellis_trace(trellis, overlap, before, symbols, steps, path);
}
