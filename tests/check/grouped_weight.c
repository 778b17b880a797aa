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

/* Codes of column j of block b, into both records. */
static void write_codes(grouped_weight *w, size_t b, size_t j, uint8_t *packed, uint8_t *plain)
{
    const size_t nr = w->gemm->nr, kr = w->gemm->kr, block = w->shape.block;
    const unsigned bits = code_bits(w->shape.codes), per_byte = 8 / bits;
    const uint8_t *codes = w->codes + (b * nr + j) * block;
    for (size_t k = 0; k < block; k++) {
        const size_t step = k / kr, line = step / per_byte;
        const uint8_t code = codes[k] ^ w->flip;
        packed[(line * nr + j) * kr + k % kr] |= (uint8_t)(code << step % per_byte * bits);
        plain[(step * nr + j) * kr + k % kr] = code;
    }
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
    const uint8_t largest = (uint8_t)((1u << bits) - 1), zero = random_zero(largest);
    w->gemm = gemm;
    w->shape = shape;
    w->flip = gemm->bytes_signed && bits == 8 ? 0x80 : 0;
    w->records = (qk_records){
        .block = (uint32_t)shape.block,
        .scale_bytes = shape.scale_bytes,
        .has_zero_points = shape.has_zero_points,
        .bytes = nr * (shape.block * bits / 8 + shape.scale_bytes + shape.has_zero_points),
    };
    fill_bytes(w->codes, values, codes);
    for (size_t i = 0; i < values; i++)
        w->codes[i] &= largest;
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
