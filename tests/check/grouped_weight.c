/* See grouped_weight.h. The layout is that of qk_records in kernels.h, written down value by value. */
#include "grouped_weight.h"

#include <math.h>
#include <string.h>

float random_scale(void)
{
    switch (random_below(5)) {
    case 0: return float_of_bits(1 + (uint32_t)random_below(0x7fffff)); /* subnormal */
    case 1: return ldexpf(1, random_int(-126, 40));
    case 2: return ldexpf(random_float(-2, 2), random_int(-126, 40));
    default: return random_float(1e-4f, 1);
    }
}

/* The same in binary16. */
static uint16_t random_half(void)
{
    switch (random_below(5)) {
    case 0: return (uint16_t)(1 + random_below(0x3ff)); /* subnormal */
    case 1: return (uint16_t)(random_below(2) ? 0x7bff : 1); /* the largest, and the smallest above zero */
    case 2: return (uint16_t)(random_below(2) << 15 | random_below(0x7c00));
    default: return (uint16_t)(0x2000 + random_below(0x1c00)); /* 2**-7 to 1 */
    }
}

static float value_of_half(uint16_t half)
{
    const int exponent = half >> 10 & 31, fraction = half & 0x3ff;
    const float magnitude =
        exponent ? ldexpf((float)(1024 + fraction), exponent - 25) : ldexpf((float)fraction, -24);
    return half >> 15 ? -magnitude : magnitude;
}

/* A scale, and the bytes of it that a record stores. */
static float write_scale(uint8_t *stored, size_t bytes)
{
    if (bytes == 2) {
        const uint16_t half = random_half();
        memcpy(stored, &half, sizeof half);
        return value_of_half(half);
    }
    const float scale = random_scale();
    memcpy(stored, &scale, sizeof scale);
    return scale;
}

static uint8_t random_zero(uint8_t largest)
{
    const uint8_t zeros[] = {0, largest, (uint8_t)random_below(largest + 1u)};
    return zeros[random_below(3)];
}

unsigned code_bits(qk_codes codes)
{
    static const uint8_t bits[] = {
        [QK_CODES_U8] = 8, [QK_CODES_U4] = 4, [QK_CODES_U2] = 2, [QK_CODES_U1] = 1, [QK_CODES_TABLE] = 4,
        [QK_CODES_TRELLIS2] = 2, [QK_CODES_TRELLIS3] = 3, [QK_CODES_TRELLIS4] = 4,
        [QK_CODES_FINE2] = 2, [QK_CODES_FINE3] = 3, [QK_CODES_FINE4] = 4,
    };
    return bits[codes];
}

/* `width` bits of a ring of bytes, bit by bit. */
static uint32_t bits_of_ring(const uint8_t *ring, size_t bytes, size_t from, unsigned width)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < width; i++) {
        const size_t bit = (from + i) % (8 * bytes);
        bits |= (uint32_t)(ring[bit / 8] >> bit % 8 & 1) << i;
    }
    return bits;
}

/* The byte to multiply that value k of column j of a block comes to, not yet xor flip. */
static uint8_t byte_of(const grouped_weight *w, const uint8_t *stored, size_t j, size_t k)
{
    const qk_codes codes = w->shape.codes;
    const unsigned bits = code_bits(codes);
    const uint8_t *levels = w->levels.data;
    if (codes <= QK_CODES_U2)
        return stored[k];
    if (codes == QK_CODES_U1)
        return 2 * stored[k];
    if (codes == QK_CODES_TABLE)
        return levels[(w->shape.row_tables ? qk_row_table_at(qk_layout_of(w->gemm), j) : 0) + stored[k]] ^ w->flip;
    if (codes <= QK_CODES_TRELLIS4) {
        const size_t quarter = k % 4, step = k % 32 / 4;
        return levels[bits_of_ring(stored + k / 32 * 4 * bits, 4 * bits, (8 * quarter + step) * bits, 6)] ^ w->flip;
    }
    const uint32_t state = bits_of_ring(stored, w->shape.block * bits / 8, k * bits, w->shape.window);
    return (uint8_t)(qk_fine_level(state) + 128);
}

/* Codes of column j of block b, into both records. */
static void write_codes(grouped_weight *w, size_t b, size_t j, uint8_t *packed, uint8_t *plain)
{
    const size_t nr = w->gemm->nr, kr = w->gemm->kr, block = w->shape.block;
    const qk_codes coding = w->shape.codes;
    const unsigned bits = code_bits(coding), per_byte = 8 / bits;
    const uint8_t *stored = w->stored + (b * nr + j) * block;
    uint8_t *codes = w->codes + (b * nr + j) * block;
    for (size_t k = 0; k < block; k++) {
        const size_t step = k / kr, line = step / per_byte;
        codes[k] = byte_of(w, stored, j, k);
        plain[(step * nr + j) * kr + k % kr] = codes[k] ^ w->flip;
        if (coding <= QK_CODES_U2)
            packed[(line * nr + j) * kr + k % kr] |= (uint8_t)((codes[k] ^ w->flip) << step % per_byte * bits);
        else if (coding == QK_CODES_U1)
            packed[(k / 32 * nr + j) * 4 + k % 4] |= (uint8_t)(stored[k] << k % 32 / 4);
        else if (coding == QK_CODES_TABLE)
            packed[(line * nr + j) * kr + k % kr] |= (uint8_t)(stored[k] << step % per_byte * bits);
    }
    if (coding >= QK_CODES_TRELLIS2)
        for (size_t i = 0; i < block * bits / 8; i++) {
            const size_t in_word = i % (4 * bits);
            const size_t plane = coding >= QK_CODES_FINE2 ? i / 4 : i / (4 * bits) * bits + in_word % bits;
            const size_t byte = coding >= QK_CODES_FINE2 ? i % 4 : in_word / bits;
            packed[(plane * nr + j) * 4 + byte] = stored[i];
        }
}

/* Any bytes, but of a trellis turned again and again, as kernels.h says. */
static void make_levels(grouped_weight *w)
{
    const qk_codes codes = w->shape.codes;
    const int is_trellis = codes >= QK_CODES_TRELLIS2 && codes <= QK_CODES_TRELLIS4;
    const size_t tables = codes != QK_CODES_TABLE ? 0 : w->shape.row_tables ? w->gemm->nr : 1;
    uint8_t *levels = place_aligned(&w->levels, is_trellis ? QK_STATE_BITS * QK_STATES : tables * QK_TABLE, 64);
    for (size_t i = 0; i < w->levels.size; i++)
        levels[i] = random_below(4) ? (uint8_t)random_bits() : random_below(2) ? 255 : 0;
    for (unsigned x = 0; is_trellis && x < QK_STATES; x++)
        for (unsigned m = 1; m < QK_STATE_BITS; m++)
            levels[m * QK_STATES + x] = levels[(x >> m | x << (QK_STATE_BITS - m)) % QK_STATES];
    freeze(&w->levels);
}

static void write_block(grouped_weight *w, size_t b, uint8_t *packed, uint8_t *plain)
{
    const size_t nr = w->gemm->nr, block = w->shape.block, scale_bytes = w->shape.scale_bytes;
    uint8_t *scales = packed + block * nr * code_bits(w->shape.codes) / 8, *zeros = scales + nr * scale_bytes;
    float *plain_scales = (float *)(plain + block * nr);
    int32_t *plain_zeros = (int32_t *)(plain_scales + nr);
    memset(packed, 0, w->records.bytes);
    for (size_t j = 0; j < nr; j++) {
        write_codes(w, b, j, packed, plain);
        w->scales[b * nr + j] = plain_scales[j] = write_scale(scales + j * scale_bytes, scale_bytes);
        if (w->shape.has_zero_points) {
            plain_zeros[j] = stored_zero(w, w->zeros[b * nr + j]);
            zeros[j] = (uint8_t)plain_zeros[j];
        }
    }
}

void make_weight(grouped_weight *w, qk_gemm_grouped_type *gemm, weight_shape shape, enum byte_pattern codes)
{
    const size_t nr = gemm->nr, columns = shape.blocks * nr, values = columns * shape.block;
    const unsigned bits = code_bits(shape.codes);
    const uint8_t largest = (uint8_t)((1u << bits) - 1);
    const uint8_t zero = shape.codes <= QK_CODES_U2 ? random_zero(largest) : shape.codes == QK_CODES_U1 ? 1 : 128;
    w->gemm = gemm;
    w->shape = shape;
    w->flip = gemm->bytes_signed && (bits == 8 || shape.codes >= QK_CODES_TABLE) ? 0x80 : 0;
    w->records = (qk_records){
        .block = (uint32_t)shape.block,
        .scale_bytes = shape.scale_bytes,
        .has_zero_points = shape.has_zero_points,
        .row_tables = shape.row_tables,
        .window = shape.window,
        .bytes = nr * (shape.block * bits / 8 + shape.scale_bytes + shape.has_zero_points),
    };
    fill_bytes(w->stored, values, codes);
    for (size_t i = 0; shape.codes < QK_CODES_TRELLIS2 && i < values; i++)
        w->stored[i] &= largest;
    make_levels(w);
    memset(w->zeros, zero, columns);
    for (size_t i = 0; shape.has_zero_points && i < columns; i++)
        w->zeros[i] = random_zero(largest);

    const size_t plain_bytes = qk_plain_bytes(&w->records, nr);
    uint8_t *packed = place_aligned(&w->packed, shape.blocks * w->records.bytes, 64);
    uint8_t *plain = place_aligned(&w->plain, shape.blocks * plain_bytes, 64);
    for (size_t b = 0; b < shape.blocks; b++)
        write_block(w, b, packed + b * w->records.bytes, plain + b * plain_bytes);
    freeze(&w->packed);
    freeze(&w->plain);
}
