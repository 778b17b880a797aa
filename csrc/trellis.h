/* The bitshift trellis of the encoder. A state is a window of `window` bits of the stream; its lowest `bits` bits are
 * the symbol that starts there. Neighbors share all but a symbol, their overlap q:
 *
 *      stream     | symbol p | symbol p+1 | symbol p+2 | ...          `bits` bits each, the first in the lowest bits
 *      state p    [ symbol p |      overlap q      ]                  = q << bits | symbol p
 *      state p+1             [      overlap q      | new ]            = q | new << (window - bits)
 *
 * so that the cheapest of the 2**bits states before an overlap, which lie side by side, serves all 2**bits states after
 * it.
 *
 * The sizes here are those of qk_viterbi_f32_type's buffers. A row is 16 values, the most lanes of any ISA; what has
 * fewer than a row's is repeated, as overlap q stands for q modulo their number.
 */
#ifndef QK_TRELLIS_H
#define QK_TRELLIS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { QK_TRELLIS_ROW = 16, QK_TRELLIS_FREE = -1 /* in the place of an overlap: any */ };

/* The largest |x|, and a cost beyond all that such x have on a path of 2**16 states, and below infinity, whose bits
 * cannot be changed. */
#define QK_TRELLIS_LIMIT 0x1p40f
#define QK_TRELLIS_CLOSED 0x1p100f

typedef struct qk_trellis {
    int bits, window;    /* bits 2 to 4, window to 16 and more than bits */
    const float *levels; /* of the states, in the order of qk_trellis_place */
} qk_trellis;

static inline size_t qk_trellis_at_least(size_t a, size_t b) { return a > b ? a : b; }

static inline size_t qk_trellis_overlaps(const qk_trellis *t) { return (size_t)1 << (t->window - t->bits); }

/* The overlaps that are computed. */
static inline size_t qk_trellis_columns(const qk_trellis *t)
{
    return qk_trellis_at_least(qk_trellis_overlaps(t), QK_TRELLIS_ROW);
}

/* The states before the overlaps q, q + run, q + 2 run ... themselves come after the same overlaps. */
static inline size_t qk_trellis_run(const qk_trellis *t)
{
    return qk_trellis_at_least(qk_trellis_overlaps(t) >> t->bits, QK_TRELLIS_ROW);
}

/* Where the level of state q << bits | symbol is, among columns << bits: a kernel takes, for a row of overlaps of the
 * first run, the same row of each other run in turns, and for each row its symbols, and reads the levels one after
 * another. */
static inline size_t qk_trellis_place(const qk_trellis *t, size_t q, size_t symbol)
{
    const size_t run = qk_trellis_run(t), runs = qk_trellis_columns(t) / run, r = q % run;
    return (((r / QK_TRELLIS_ROW * runs + q / run) << t->bits) + symbol) * QK_TRELLIS_ROW + r % QK_TRELLIS_ROW;
}

/* The costs of the overlaps, repeated so that the states before a row of overlaps need not be wrapped around. */
static inline size_t qk_trellis_costs(const qk_trellis *t)
{
    return qk_trellis_at_least(qk_trellis_overlaps(t), (size_t)QK_TRELLIS_ROW << t->bits);
}

/* Scratch of a kernel: costs before and after a step, and for each step and overlap the low byte of its cost. */
static inline size_t qk_trellis_scratch_bytes(const qk_trellis *t, size_t steps)
{
    return 2 * qk_trellis_costs(t) * sizeof(float) + steps * qk_trellis_columns(t);
}

/* A cost that carries its state's symbol. */
static inline float qk_trellis_marked(float cost, size_t symbol, int bits)
{
    uint32_t word;
    memcpy(&word, &cost, sizeof word);
    word = word >> bits << bits | (uint32_t)symbol;
    memcpy(&cost, &word, sizeof cost);
    return cost;
}

/* The costs before the first step. */
static inline void qk_trellis_start(const qk_trellis *t, ptrdiff_t overlap, float *costs)
{
    const size_t overlaps = qk_trellis_overlaps(t);
    for (size_t q = 0; q < qk_trellis_costs(t); q++)
        costs[q] = overlap == QK_TRELLIS_FREE || q % overlaps == (size_t)overlap ? 0.0f : QK_TRELLIS_CLOSED;
}

/* The states of the path that ends at this overlap, or at the cheapest one, the lowest of equals. */
static inline void qk_trellis_trace(const qk_trellis *t, ptrdiff_t overlap, const float *costs, const uint8_t *symbols,
                                    size_t steps, uint16_t *path)
{
    const size_t overlaps = qk_trellis_overlaps(t), columns = qk_trellis_columns(t);
    size_t q = overlap == QK_TRELLIS_FREE ? 0 : (size_t)overlap;
    if (overlap == QK_TRELLIS_FREE)
        for (size_t i = 1; i < overlaps; i++)
            q = costs[i] < costs[q] ? i : q;
    for (size_t p = steps; p-- > 0; q = path[p] % overlaps)
        path[p] = (uint16_t)(q << t->bits | (symbols[p * columns + q] & ((1u << t->bits) - 1)));
}

#endif
