/* Weights in blocks along k, in plain C: the fallback and the oracle. Layout and formula: qk_records and
 * qk_grouped_tile in kernels.h; kr = 1, and 16 columns let a compiler keep sums in vector registers of the baseline
 * ISA. */
#include <math.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "kernels/unroll.h"

enum { MR = 4, NR = 16, KR = 1 };

static inline size_t code_bytes(const qk_records *records, const unsigned bits)
{
    return records->block * NR * bits / 8;
}

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

/* The codes of block b of a tile, one a byte, [k][NR]; with bits == 8 they need no decoding. */
static inline void unpack(const uint8_t *packed, size_t block, const unsigned bits, uint8_t *codes)
{
    const size_t per_byte = 8 / bits;
    for (size_t k = 0; k < block; k++)
        for (size_t j = 0; j < NR; j++)
            codes[k * NR + j] = packed[k / per_byte * NR + j] >> k % per_byte * bits & ((1u << bits) - 1);
}

static void decode(const uint8_t *packed, const qk_records *records, size_t blocks, uint8_t *plain, const unsigned bits)
{
    for (size_t b = 0; b < blocks; b++, packed += records->bytes, plain += qk_plain_bytes(records, NR)) {
        unpack(packed, records->block, bits, plain);
        const uint8_t *scales = packed + code_bytes(records, bits);
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

/* bits: of the packed records, or 0 for plain ones. */
static inline void run_tile(const qk_grouped_tile *tile, const unsigned bits)
{
    enum { MAX_BLOCK = 256 };
    _Alignas(64) uint8_t plain[(MAX_BLOCK + 8) * NR]; /* codes, a scale and a zero point */
    const size_t record_bytes = bits ? tile->records->bytes : qk_plain_bytes(tile->records, NR);
    for (size_t p = 0; p < tile->panels; p++) {
        float *sums = tile->sums + p * tile->m * NR;
        if (!tile->accumulate)
            memset(sums, 0, tile->m * NR * sizeof *sums);
        for (size_t b = 0; b < tile->blocks; b++) {
            const uint8_t *record = tile->b + p * tile->panel_bytes + b * record_bytes;
            if (bits)
                decode(record, tile->records, 1, plain, bits);
            add_record(tile, b, bits ? plain : record, sums);
        }
    }
}

static void run(const qk_grouped_tile *tile) { run_tile(tile, 0); }

#define DEFINE_CODES(bits)                                                                                   \
    static void run_packed_u##bits(const qk_grouped_tile *tile) { run_tile(tile, bits); }                    \
    static void decode_u##bits(const uint8_t *packed, const qk_records *records, size_t blocks, uint8_t *plain) \
    {                                                                                                        \
        decode(packed, records, blocks, plain, bits);                                                        \
    }
DEFINE_CODES(8)
DEFINE_CODES(4)
DEFINE_CODES(2)

qk_gemm_grouped_type qk_gemm_grouped_scalar = {
    .mr = {MR, MR, MR}, .few = {MR, MR, MR}, .nr = NR, .kr = KR,
    .run = {run, run, run},
    .run_packed = {run_packed_u8, run_packed_u4, run_packed_u2},
    .decode = {decode_u8, decode_u4, decode_u2},
};
