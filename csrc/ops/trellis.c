/* Encoding for the bitshift trellis (csrc/trellis.h): words that bite their own tail. Pass 1 runs freely over the
 * values on both sides of the word's seam and keeps the overlap that it found there; pass 2 is the cheapest path of the
 * word that starts and ends with it. The overlap settles within a few windows, so that SEAM values on each side are
 * enough: with windows of 16 bits and 2 bits a weight, 128 would gain 0.04 dB.
 *
 *      x[steps - SEAM] ... x[steps - 1] | x[0] ... x[SEAM - 1]        pass 1
 *                              overlap -^
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "calls.h"
#include "kernels.h"
#include "ops/sizes.h"
#include "threads.h"

enum {
    SEAM = 32,
    DRAWN = 4, /* rows that a thread takes at a time */
};

typedef struct encoder {
    qk_trellis trellis;
    const float *x;
    size_t rows, steps, before, after; /* before and after the seam */
    uint8_t *stream;
    uint8_t *scratch; /* of all parts */
    size_t viterbi_bytes, part_bytes;
    atomic_size_t next; /* row to draw */
} encoder;

/* The symbols of a path, the first in the lowest bits. steps * bits is a multiple of 8. */
static void write_stream(const uint16_t *path, size_t steps, int bits, uint8_t *stream)
{
    uint32_t held = 0, count = 0;
    for (size_t p = 0; p < steps; p++) {
        held |= (path[p] & ((1u << bits) - 1)) << count;
        count += (uint32_t)bits;
        if (count >= 8) {
            *stream++ = (uint8_t)held;
            held >>= 8;
            count -= 8;
        }
    }
}

static void encode_row(const encoder *e, const float *x, uint8_t *scratch, uint8_t *stream)
{
    const size_t seam = e->before + e->after;
    uint16_t *path = (uint16_t *)(scratch + e->viterbi_bytes);
    float *around = (float *)(path + e->steps);
    for (size_t i = 0; i < seam; i++)
        around[i] = x[(e->steps - e->before + i) % e->steps];
    qk_kernels.viterbi_f32(&e->trellis, around, seam, QK_TRELLIS_FREE, scratch, path);
    const size_t overlap = path[e->before] % qk_trellis_overlaps(&e->trellis);
    qk_kernels.viterbi_f32(&e->trellis, x, e->steps, (ptrdiff_t)overlap, scratch, path);
    write_stream(path, e->steps, e->trellis.bits, stream);
}

static void encode_part(void *context, size_t part)
{
    encoder *e = context;
    const size_t row_bytes = e->steps * (size_t)e->trellis.bits / 8;
    for (size_t first; !qk_interrupted() && (first = atomic_fetch_add(&e->next, DRAWN)) < e->rows;)
        for (size_t row = first; row < least(first + DRAWN, e->rows); row++)
            encode_row(e, e->x + row * e->steps, e->scratch + part * e->part_bytes, e->stream + row * row_bytes);
}

qk_status qk_encode_trellis(const float *x, size_t rows, size_t steps, const int8_t *levels, int bits, int window,
                            uint8_t *stream)
{
    QK_CALL;
    float low = 0.0f, high = 0.0f;
    if (qk_kernels.minmax_f32(x, rows * steps, &low, &high))
        return QK_NAN;
    if (low < -QK_TRELLIS_LIMIT || high > QK_TRELLIS_LIMIT)
        return QK_TOO_FAR;
    encoder e = {.trellis = {bits, window, NULL}, .x = x, .rows = rows, .steps = steps, .stream = stream};
    e.before = least(steps / 2, SEAM);
    e.after = least(steps - steps / 2, SEAM);
    e.viterbi_bytes = round_up(qk_trellis_scratch_bytes(&e.trellis, steps));
    e.part_bytes = round_up(e.viterbi_bytes + steps * sizeof(uint16_t) + 2 * SEAM * sizeof(float));

    const size_t columns = qk_trellis_columns(&e.trellis), symbols = (size_t)1 << bits;
    const size_t level_bytes = round_up(columns * symbols * sizeof(float));
    const size_t parts = least((size_t)qk_get_num_threads(), (rows + DRAWN - 1) / DRAWN);
    uint8_t *memory = aligned_alloc(CACHE_LINE, level_bytes + parts * e.part_bytes);
    if (!memory)
        return QK_NO_MEMORY;
    float *in_order = (float *)memory;
    e.trellis.levels = in_order;
    e.scratch = memory + level_bytes;
    for (size_t q = 0; q < columns; q++)
        for (size_t symbol = 0; symbol < symbols; symbol++)
            in_order[qk_trellis_place(&e.trellis, q, symbol)] =
                levels[q % qk_trellis_overlaps(&e.trellis) << bits | symbol];
    const qk_status status = qk_parallel_for(encode_part, &e, parts);
    free(memory);
    return status;
}
