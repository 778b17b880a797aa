/* The Viterbi algorithm on the bitshift trellis, once for all SIMD ISAs (see affine_f32_body.h): lanes are overlaps
 * that follow each other (csrc/trellis.h). For overlap q and symbol j
 *
 *      cost[j] = before[(q << bits | j) mod overlaps] + (x - level[q << bits | j])**2, its lowest bits replaced by j
 *      after[q] = min over j of cost[j], which says what j was
 *
 * The costs before 2**bits rows are loaded as they lie and sorted by symbol in registers,
 *
 *      before[r << bits ...]:    00 01 02 03 | 10 11 12 13 | 20 21 22 23 | 30 31 32 33        bits = 2, four lanes
 *      m[0 ... 3]:               00 10 20 30 | 01 11 21 31 | 02 12 22 32 | 03 13 23 33
 *
 * where they serve the same row of all runs. Registers: m, 2**bits of them (on AVX2 with 4 bits they stay in memory, as
 * operands), x, d, least.
 */
#ifndef QK_VITERBI_F32_BODY_H
#define QK_VITERBI_F32_BODY_H

#include "kernels.h"
#include "kernels/unroll.h"

/* 2**bits vectors, seen as one list: element i goes to the place whose number is that of i rotated right by `bits`
 * bits, one bit a round. */
QK_INLINE void sort_by_symbol(vf *m, int bits)
{
    vf sorted[16];
    QK_UNROLL4(round, bits, {
        QK_UNROLL8(i, 1 << (bits - 1), {
            sorted[i] = vf_evens(m[2 * i], m[2 * i + 1]);
            sorted[i + (1 << (bits - 1))] = vf_odds(m[2 * i], m[2 * i + 1]);
        })
        QK_UNROLL16(i, 1 << bits, m[i] = sorted[i];)
    })
}

QK_INLINE vf viterbi_cost(vf before, vf x, vf level, int symbol, int bits)
{
    const vf d = vf_sub(x, level);
    return vf_of_bits(vi_and_or(vf_bits(vf_add(before, vf_mul(d, d))), vi_set1(-(1 << bits)), vi_set1(symbol)));
}

/* Where the costs lie, in rows of LANES. A trellis whose runs are whole rows is stepped in place: the costs after a
 * block of 2**bits rows, one row of each run, replace those before it, which are in the L1 cache. So rows move: the
 * number of a row, of `bits` bits, is rotated left by a symbol a step. A smaller trellis goes from one buffer to
 * another. */
typedef struct cost_order {
    int in_place, bits, turn;
} cost_order;

static inline size_t place_of_row(cost_order order, size_t row)
{
    const size_t rotated = row << order.turn | row >> (order.bits - order.turn);
    return order.in_place ? rotated & (((size_t)1 << order.bits) - 1) : row;
}

QK_INLINE void viterbi_step(const qk_trellis *trellis, int bits, cost_order order, float x, float *before, float *after,
                            uint8_t *symbols)
{
    const size_t columns = qk_trellis_columns(trellis), run = qk_trellis_run(trellis);
    const size_t costs = qk_trellis_costs(trellis);
    const size_t row_levels = QK_TRELLIS_ROW << bits, levels_of_all_runs = columns / run * row_levels;
    const vf value = vf_set1(x);
    float *from[16], *to[16]; /* of the first block, each symbol or run */
    for (size_t j = 0; j < (size_t)1 << bits; j++) {
        from[j] = before + place_of_row(order, j) * LANES;
        to[j] = order.in_place ? from[j] : after + j * run;
    }
    for (size_t r = 0; r < run; r += LANES) {
        const size_t block = place_of_row(order, r / LANES << bits) * LANES, into = order.in_place ? block : r;
        vf m[16];
        QK_UNROLL16(j, 1 << bits, m[j] = vf_load(from[j] + block);)
        sort_by_symbol(m, bits);
        const float *levels = trellis->levels + r / QK_TRELLIS_ROW * levels_of_all_runs + r % QK_TRELLIS_ROW;
        for (size_t q = r, i = 0; q < columns; q += run, i++, levels += row_levels) {
            vf least = viterbi_cost(m[0], value, vf_load(levels), 0, bits);
            QK_UNROLL16(j, 1 << bits, {
                if (j > 0)
                    least = vf_min(least, viterbi_cost(m[j], value, vf_load(levels + j * QK_TRELLIS_ROW), j, bits));
            })
            vf_store(to[i] + into, least);
            vi_store_bytes(symbols + q, vf_bits(least));
        }
    }
    for (size_t q = columns; q < costs; q += LANES)
        vf_store(after + q, vf_load(after + q - columns));
}

QK_INLINE void viterbi(const qk_trellis *trellis, int bits, const float *x, size_t steps, ptrdiff_t overlap,
                       void *scratch, uint16_t *path)
{
    const size_t overlaps = qk_trellis_overlaps(trellis);
    float *before = scratch, *after = before + qk_trellis_costs(trellis);
    uint8_t *symbols = (uint8_t *)(after + qk_trellis_costs(trellis));
    cost_order order = {.in_place = overlaps >> bits >= QK_TRELLIS_ROW};
    while (order.in_place && overlaps >> order.bits > LANES)
        order.bits++;

    qk_trellis_start(trellis, overlap, before);
    for (size_t p = 0; p < steps; p++) {
        viterbi_step(trellis, bits, order, x[p], before, after, symbols + p * qk_trellis_columns(trellis));
        if (order.in_place) {
            order.turn = (order.turn + bits) % order.bits;
        } else {
            float *swapped = before;
            before = after;
            after = swapped;
        }
    }
    for (size_t row = 0; order.in_place && row < overlaps / LANES; row++)
        vf_store(after + row * LANES, vf_load(before + place_of_row(order, row) * LANES));
    qk_trellis_trace(trellis, overlap, order.in_place ? after : before, symbols, steps, path);
}

#define QK_DEFINE_VITERBI(isa)                                                                               \
    void qk_viterbi_f32_##isa(const qk_trellis *trellis, const float *x, size_t steps, ptrdiff_t overlap,    \
                              void *scratch, uint16_t *path)                                                 \
    {                                                                                                        \
        switch (trellis->bits) {                                                                             \
        case 2: viterbi(trellis, 2, x, steps, overlap, scratch, path); break;                                \
        case 3: viterbi(trellis, 3, x, steps, overlap, scratch, path); break;                                \
        case 4: viterbi(trellis, 4, x, steps, overlap, scratch, path); break;                                \
        }                                                                                                    \
    }

#endif
