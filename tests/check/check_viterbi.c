/* viterbi_f32. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

static buffer x_buffer = {.name = "x"}, level_buffer = {.name = "levels"}, scratch_buffer = {.name = "scratch"},
              path_buffer = {.name = "path"}, expected_path = {.name = "expected path"};

/* The low bits of a float32 replaced. */
static float marked(float cost, uint32_t mask, uint32_t symbol)
{
    uint32_t word;
    memcpy(&word, &cost, sizeof word);
    return float_of_bits((word & ~mask) | symbol);
}

/* Costs of states instead of overlaps, forward from each state to its successors, and the whole table kept. The square
 * in double is exact, and rounded to float once. */
static void plain_viterbi(const qk_trellis *trellis, const float *x, size_t steps, ptrdiff_t overlap, void *scratch,
                          uint16_t *path)
{
    const uint32_t states = 1u << trellis->window, mask = (1u << trellis->bits) - 1, shift = (uint32_t)trellis->bits;
    float *cost = malloc((steps + 1) * states * sizeof *cost);
    (void)scratch;
    for (uint32_t s = 0; s < states; s++)
        cost[s] = overlap < 0 || (s & (states - 1) >> shift) == (uint32_t)overlap ? 0.0f : QK_TRELLIS_CLOSED;
    for (size_t p = 0; p < steps; p++) {
        float *from = cost + p * states, *to = from + states;
        for (uint32_t s = 0; s < states; s++) {
            const float d = x[p] - trellis->levels[qk_trellis_place(trellis, s >> shift, s & mask)];
            from[s] = marked((float)((double)from[s] + (double)(float)((double)d * d)), mask, s & mask);
        }
        for (uint32_t s = 0; s < states; s++) {
            const float *before = from + ((s << shift) & (states - 1));
            to[s] = before[0];
            for (uint32_t j = 1; j <= mask; j++)
                to[s] = before[j] < to[s] ? before[j] : to[s];
        }
    }
    uint32_t q = overlap < 0 ? 0 : (uint32_t)overlap;
    for (uint32_t i = 1; overlap < 0 && i < states >> shift; i++)
        q = cost[steps * states + i] < cost[steps * states + q] ? i : q;
    for (size_t p = steps; p-- > 0;) {
        const float *before = cost + p * states + (q << shift);
        uint32_t best = 0;
        for (uint32_t j = 1; j <= mask; j++)
            best = before[j] < before[best] ? j : best;
        path[p] = (uint16_t)(q << shift | best);
        q = path[p] & (states - 1) >> shift;
    }
    free(cost);
}

enum { DATA_KINDS = 4 };

/* Integers make many costs equal. */
static float value_of(size_t data)
{
    switch (data) {
    case 0: return 0.0f;
    case 1: return (float)random_int(-3, 3);
    case 2: return random_float(-150, 150);
    default: return random_below(2) ? QK_TRELLIS_LIMIT : -QK_TRELLIS_LIMIT;
    }
}

static void fill_levels(const qk_trellis *trellis, float *levels, size_t data)
{
    for (size_t q = 0; q < qk_trellis_columns(trellis); q++)
        for (size_t symbol = 0; symbol < (size_t)1 << trellis->bits; symbol++) {
            const size_t first = qk_trellis_place(trellis, q % qk_trellis_overlaps(trellis), symbol);
            levels[qk_trellis_place(trellis, q, symbol)] =
                q < qk_trellis_overlaps(trellis) ? (float)random_int(data == 1 ? -3 : -128, data == 1 ? 3 : 127)
                                                 : levels[first];
        }
}

static void check_trellis(const kernel_row *row, int bits, int window, size_t steps, size_t data)
{
    qk_trellis trellis = {bits, window, NULL};
    const size_t levels_count = qk_trellis_columns(&trellis) << bits;
    float *x = place(&x_buffer, steps, sizeof *x), *levels = place(&level_buffer, levels_count, sizeof *levels);
    uint16_t *path = place(&path_buffer, steps, sizeof *path);
    uint16_t *expected = place_expected(&expected_path, &path_buffer);
    void *scratch = place_aligned(&scratch_buffer, qk_trellis_scratch_bytes(&trellis, steps), 64);
    trellis.levels = levels;
    fill_levels(&trellis, levels, data);
    for (size_t p = 0; p < steps; p++)
        x[p] = value_of(data);
    const ptrdiff_t overlap =
        random_below(2) ? QK_TRELLIS_FREE : (ptrdiff_t)random_below(qk_trellis_overlaps(&trellis));
    freeze(&x_buffer);
    freeze(&level_buffer);
    begin_variant("overlap=%td", overlap);
    row->kernel.viterbi_f32(&trellis, x, steps, overlap, scratch, path);
    expect_intact(&scratch_buffer);
    if (row->isa != QK_ISA_scalar)
        place_aligned(&scratch_buffer, qk_trellis_scratch_bytes(&trellis, steps), 64);
    ORACLE(row, viterbi_f32, plain_viterbi)(&trellis, x, steps, overlap, scratch, expected);
    expect_same(&path_buffer, &expected_path, U8);
}

void check_viterbi_f32(const kernel_row *row)
{
    static const size_t step_counts[] = {0, 1, 2, 9, 32, 70};
    const size_t step_kinds = sizeof step_counts / sizeof *step_counts;
    for (int bits = 2; bits <= 4; bits++)
        for (int window = bits + 1; window <= 16; window++)
            for (size_t variant = 0; variant < SIDE_COUNT * step_kinds * DATA_KINDS; variant++) {
                const size_t steps = step_counts[variant / SIDE_COUNT % step_kinds];
                const size_t data = variant / SIDE_COUNT / step_kinds;
                const size_t turn = variant / SIDE_COUNT % step_kinds + variant % SIDE_COUNT + (size_t)window;
                if (window > 12 && (steps > 9 || (!options.all && data != turn % DATA_KINDS)))
                    continue;
                if (begin_case(variant % SIDE_COUNT, 0, "bits=%d window=%d steps=%zu data=%zu", bits, window, steps,
                               data))
                    check_trellis(row, bits, window, steps, data);
            }
}

timing bench_viterbi_f32(kernel_pointer kernel)
{
    enum { STEPS = 32, STATES = 64 };
    static float x[STEPS], levels[STATES];
    static _Alignas(64) uint8_t scratch[2 * 64 * sizeof(float) + STEPS * 16];
    static uint16_t path[STEPS];
    const qk_trellis trellis = {2, 6, levels};
    stopwatch w = {0};
    for (size_t i = 0; i < STATES; i++)
        levels[i] = (float)random_int(-127, 127);
    for (size_t p = 0; p < STEPS; p++)
        x[p] = random_float(-100, 100);
    while (keep_timing(&w))
        kernel.viterbi_f32(&trellis, x, STEPS, QK_TRELLIS_FREE, scratch, path);
    return timing_of(&w, STEPS, ELEMENTS);
}
