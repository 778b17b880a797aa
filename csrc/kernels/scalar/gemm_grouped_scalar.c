/* Weights in blocks along k, in plain C: the fallback and the oracle. Layout and formula: qk_records and
 * qk_grouped_tile in kernels.h; kr = 1, and 16 columns let a compiler keep sums in vector registers of the baseline
 * ISA. */
#include <math.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "kernels/unroll.h"

enum { MR = 4, NR = 16, KR = 1, CHUNK = 32, MAX_BLOCK = 256 };

static float scale_of(const qk_records *records, const uint8_t *scales, size_t j)
{
    if (records->scale_bytes == 2) {
        uint16_t half;
        memcpy(&half, scales + 2 * j, sizeof half);
        return qk_float_of_half(half);
    }
    float scale;
    memcpy(&scale, scales + 4 * j, sizeof scale);
    return scale;
}

/* Codes in lines, one a byte, [k][NR]; with bits == 8 they need no decoding. */
static inline void unpack_lines(const uint8_t *packed, size_t block, const unsigned bits, uint8_t *codes)
{
    const size_t per_byte = 8 / bits;
    for (size_t k = 0; k < block; k++)
        for (size_t j = 0; j < NR; j++)
            codes[k * NR + j] = packed[k / per_byte * NR + j] >> k % per_byte * bits & ((1u << bits) - 1);
}

static void look_up(const qk_records *records, const uint8_t *levels, uint8_t *codes)
{
    for (size_t k = 0; k < records->block; k++)
        for (size_t j = 0; j < NR; j++)
            codes[k * NR + j] = levels[(records->row_tables ? j * QK_TABLE : 0) + codes[k * NR + j]];
}

/* 0 and 2, around a zero point of 1. */
static void unpack_signs(const uint8_t *planes, size_t block, uint8_t *codes)
{
    for (size_t k = 0; k < block; k++)
        for (size_t j = 0; j < NR; j++)
            codes[k * NR + j] = 2 * (planes[(k / CHUNK * NR + j) * 4 + k % 4] >> k % CHUNK / 4 & 1);
}

/* `width` bits of a ring from the given one on. */
static inline unsigned state_at(const uint8_t *ring, size_t bytes, size_t bit, unsigned width)
{
    unsigned state = 0;
    for (size_t i = 0; i < 3; i++)
        state |= (unsigned)ring[(bit / 8 + i) % bytes] << 8 * i;
    return state >> bit % 8 & ((1u << width) - 1);
}

static void unpack_trellis(const uint8_t *planes, size_t block, const unsigned bits, const uint8_t *levels, uint8_t *codes)
{
    for (size_t first = 0; first < block; first += CHUNK, planes += bits * NR * 4)
        for (size_t j = 0; j < NR; j++) {
            uint8_t ring[4 * 4];
            for (size_t b = 0; b < 4 * bits; b++)
                ring[b] = planes[(b % bits * NR + j) * 4 + b / bits];
            for (size_t k = 0; k < CHUNK; k++) {
                const size_t bit = (k % 4 * 8 + k / 4) * bits;
                codes[(first + k) * NR + j] = levels[state_at(ring, 4 * bits, bit, QK_STATE_BITS)];
            }
        }
}

static void unpack_fine(const uint8_t *planes, const qk_records *records, const unsigned bits, uint8_t *codes)
{
    const size_t bytes = records->block * bits / 8;
    uint8_t ring[MAX_BLOCK * 4 / 8];
    for (size_t j = 0; j < NR; j++) {
        for (size_t b = 0; b < bytes; b++)
            ring[b] = planes[(b / 4 * NR + j) * 4 + b % 4];
        for (size_t k = 0; k < records->block; k++)
            codes[k * NR + j] = (uint8_t)(qk_fine_level(state_at(ring, bytes, k * bits, records->window)) + 128);
    }
}

/* The bytes to multiply, [k][NR]. */
static inline void unpack(const uint8_t *packed, const qk_records *records, const uint8_t *levels, const qk_codes coding,
                          uint8_t *codes)
{
    switch (coding) {
    case QK_CODES_U8: unpack_lines(packed, records->block, 8, codes); break;
    case QK_CODES_U4: unpack_lines(packed, records->block, 4, codes); break;
    case QK_CODES_U2: unpack_lines(packed, records->block, 2, codes); break;
    case QK_CODES_U1: unpack_signs(packed, records->block, codes); break;
    case QK_CODES_TABLE:
        unpack_lines(packed, records->block, 4, codes);
        look_up(records, levels, codes);
        break;
    case QK_CODES_TRELLIS2: unpack_trellis(packed, records->block, 2, levels, codes); break;
    case QK_CODES_TRELLIS3: unpack_trellis(packed, records->block, 3, levels, codes); break;
    case QK_CODES_TRELLIS4: unpack_trellis(packed, records->block, 4, levels, codes); break;
    case QK_CODES_FINE2: unpack_fine(packed, records, 2, codes); break;
    case QK_CODES_FINE3: unpack_fine(packed, records, 3, codes); break;
    default: unpack_fine(packed, records, 4, codes);
    }
}

static inline void decode(const uint8_t *packed, const qk_records *records, const uint8_t *levels, size_t blocks,
                          uint8_t *plain, const qk_codes coding)
{
    const size_t after = records->scale_bytes + records->has_zero_points; /* bytes of a column after its codes */
    for (size_t b = 0; b < blocks; b++, packed += records->bytes, plain += qk_plain_bytes(records, NR)) {
        unpack(packed, records, levels, coding, plain);
        const uint8_t *scales = packed + records->bytes - after * NR;
        float *plain_scales = (float *)(plain + records->block * NR);
        for (size_t j = 0; j < NR; j++)
            plain_scales[j] = scale_of(records, scales, j);
        int32_t *plain_zeros = (int32_t *)(plain_scales + NR);
        for (size_t j = 0; records->has_zero_points && j < NR; j++)
            plain_zeros[j] = scales[records->scale_bytes * NR + j];
    }
}

/* Add the product with a plain record: block b of the tile's rows. */
static void add_record(const qk_grouped_tile *tile, size_t b, const uint8_t *codes, float *sums)
{
    const size_t block = tile->records->block;
    const float *scales = (const float *)(codes + block * NR);
    const int32_t *zeros = (const int32_t *)(scales + NR);
    for (size_t i = 0; i < tile->m; i++) {
        const int8_t *a = tile->a + i * tile->a_stride + b * block;
        const int32_t term = tile->terms[i * tile->row_blocks + b];
        int32_t acc[NR];
        for (size_t j = 0; j < NR; j++)
            acc[j] = tile->records->has_zero_points ? term * zeros[j] : term;
        for (size_t k = 0; k < block; k++)
            for (size_t j = 0; j < NR; j++)
                acc[j] += a[k] * codes[k * NR + j];
        for (size_t j = 0; j < NR; j++) {
            const float sum = tile->a_scales ? (float)acc[j] * tile->a_scales[i * tile->row_blocks + b] : (float)acc[j];
            sums[i * NR + j] = fmaf(sum, scales[j], sums[i * NR + j]);
        }
    }
}

/* coding: of the packed records, or QK_CODES_COUNT for plain ones. */
static inline void run_tile(const qk_grouped_tile *tile, const qk_codes coding)
{
    const int is_plain = coding == QK_CODES_COUNT;
    _Alignas(64) uint8_t plain[(MAX_BLOCK + 8) * NR]; /* codes, a scale and a zero point */
    const size_t record_bytes = is_plain ? qk_plain_bytes(tile->records, NR) : tile->records->bytes;
    for (size_t p = 0; p < tile->panels; p++) {
        float *sums = tile->sums + p * tile->m * NR;
        if (!tile->accumulate)
            memset(sums, 0, tile->m * NR * sizeof *sums);
        for (size_t b = 0; b < tile->blocks; b++) {
            const uint8_t *record = tile->b + p * tile->panel_bytes + b * record_bytes;
            if (!is_plain)
                decode(record, tile->records, tile->levels, 1, plain, coding);
            add_record(tile, b, is_plain ? record : plain, sums);
        }
    }
}

static void run(const qk_grouped_tile *tile) { run_tile(tile, QK_CODES_COUNT); }

#define DEFINE_CODES(name)                                                                                   \
    static void run_packed_##name(const qk_grouped_tile *tile) { run_tile(tile, QK_CODES_##name); }          \
    static void decode_##name(const uint8_t *packed, const qk_records *records, const uint8_t *levels,       \
                              size_t blocks, uint8_t *plain)                                                 \
    {                                                                                                        \
        decode(packed, records, levels, blocks, plain, QK_CODES_##name);                                     \
    }
#define EACH_CODING(X) \
    X(U8) X(U4) X(U2) X(U1) X(TABLE) X(TRELLIS2) X(TRELLIS3) X(TRELLIS4) X(FINE2) X(FINE3) X(FINE4)
EACH_CODING(DEFINE_CODES)

#define ROWS(name) [QK_CODES_##name] = MR,
#define RUN(name) [QK_CODES_##name] = run,
#define RUN_PACKED(name) [QK_CODES_##name] = run_packed_##name,
#define DECODE(name) [QK_CODES_##name] = decode_##name,
qk_gemm_grouped_type qk_gemm_grouped_scalar = {
    .mr = {EACH_CODING(ROWS)}, .few = {EACH_CODING(ROWS)}, .nr = NR, .kr = KR, .lanes = 1,
    .run = {EACH_CODING(RUN)}, .run_packed = {EACH_CODING(RUN_PACKED)}, .decode = {EACH_CODING(DECODE)},
};
