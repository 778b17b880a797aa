/* Pack the codes, scales and zero points of a weight into the panels of the selected ISA's kernel, and unpack them
 * again. */
#include "packed_weight.h"

#include <string.h>

#include "float16.h"
#include "threads.h"

enum { ALIGNMENT = 64, UNIT = 32 /* blocks are multiples of it */, LARGEST_BLOCK = 256, SMALL = 1 << 18 };

static uint64_t ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

/* The values along k that kernels sum as integers: a divisor of the group, or nearly equal parts of a whole row. */
static uint32_t block_of(uint64_t k, uint64_t group)
{
    if (group == 0 || group >= k) {
        const uint64_t parts = k ? ceil_div(k, LARGEST_BLOCK) : 1, part = k ? ceil_div(k, parts) : 1;
        return (uint32_t)(ceil_div(part, UNIT) * UNIT);
    }
    uint32_t block = LARGEST_BLOCK;
    while (group % block)
        block -= UNIT;
    return block;
}

static qk_codes codes_of_bits(int bits) { return bits == 8 ? QK_CODES_U8 : bits == 4 ? QK_CODES_U4 : QK_CODES_U2; }
static unsigned bits_of(const qk_packed_weight *w) { return 8u >> w->codes; }

/* The header of a packed weight; 0 when a size overflows. */
static int lay_out(const qk_weight *weight, qk_packed_weight *w, uint64_t *total)
{
    qk_gemm_grouped_type *gemm = qk_kernels.gemm_grouped;
    const uint32_t block = block_of(weight->k, weight->group);
    const uint64_t blocks = ceil_div(weight->k, block);
    *w = (qk_packed_weight){
        .n = weight->n,
        .k = weight->k,
        .panels = ceil_div(sizeof *w, ALIGNMENT) * ALIGNMENT,
        .group = weight->group == 0 || weight->group >= weight->k ? (blocks ? blocks : 1) * block : weight->group,
        .records = {block, (uint8_t)weight->scale_bytes, weight->zero_points != NULL, 0},
        .blocks = (uint32_t)blocks,
        .codes = (uint8_t)codes_of_bits(weight->bits),
        .isa = (uint8_t)qk_kernels.isa_of[QK_SLOT_gemm_grouped],
        .nr = gemm->nr,
        .kr = gemm->kr,
        .zero = (uint8_t)(1 << (weight->bits - 1)),
    };
    w->flip = weight->bits == 8 && gemm->bytes_signed ? 0x80 : 0;
    w->records.bytes =
        gemm->nr * ((size_t)block * (size_t)weight->bits / 8 + w->records.scale_bytes + w->records.has_zero_points);
    uint64_t bytes;
    if (blocks > UINT32_MAX || weight->n > PTRDIFF_MAX || __builtin_mul_overflow(blocks, w->records.bytes, &bytes) ||
        __builtin_add_overflow(bytes, ALIGNMENT - 1, &bytes))
        return 0;
    w->panel_bytes = bytes / ALIGNMENT * ALIGNMENT;
    return !__builtin_mul_overflow(qk_weight_panels(w), w->panel_bytes, total) &&
           !__builtin_add_overflow(*total, w->panels, total) && *total <= PTRDIFF_MAX;
}

qk_status qk_packed_weight_size(const qk_weight *shape, size_t *bytes)
{
    qk_packed_weight header;
    uint64_t total;
    if (!lay_out(shape, &header, &total))
        return QK_TOO_LARGE;
    *bytes = (size_t)total;
    return QK_OK;
}

/* ------------------------------------------------------------------------------------------------- packing */

typedef struct packing {
    const qk_weight *weight;
    const qk_packed_weight *header;
} packing;

static size_t groups_of(const qk_packed_weight *w) { return ceil_div(w->k, w->group); }

/* The kr codes of column j of a panel in one step: where their bytes are in a record, and their bit there. */
typedef struct place {
    size_t byte;
    unsigned shift;
} place;

static place place_of(const qk_packed_weight *w, size_t j, size_t step)
{
    const unsigned bits = bits_of(w), per_byte = 8 / bits;
    return (place){(step / per_byte * w->nr + j) * w->kr, (unsigned)(step % per_byte) * bits};
}

/* The bytes of a record before its scales. */
static size_t code_bytes(const qk_packed_weight *w) { return (size_t)w->records.block * w->nr * bits_of(w) / 8; }

/* A task: one panel. */
static void pack_panel(void *context, size_t panel)
{
    const packing *job = context;
    const qk_weight *weight = job->weight;
    const qk_packed_weight *w = job->header;
    const size_t col = panel * w->nr, count = w->n - col < w->nr ? w->n - col : w->nr;
    const size_t block = w->records.block, scale_bytes = w->records.scale_bytes, groups = groups_of(w);
    uint8_t *record = qk_weight_panel(w, panel);
    memset(record, 0, w->panel_bytes);
    for (size_t b = 0; b < w->blocks; b++, record += w->records.bytes) {
        const size_t first = b * block, values = w->k - first < block ? w->k - first : block, group = first / w->group;
        uint8_t *scales = record + code_bytes(w), *zero_points = scales + w->nr * scale_bytes;
        for (size_t j = 0; j < count; j++) {
            const uint8_t *codes = weight->codes + (col + j) * w->k + first;
            for (size_t p = 0; p < values; p += w->kr) {
                const place at = place_of(w, j, p / w->kr);
                for (size_t i = 0; i < w->kr && p + i < values; i++)
                    record[at.byte + i] |= (uint8_t)((codes[p + i] ^ w->flip) << at.shift);
            }
            const size_t number = (col + j) * groups + group;
            memcpy(scales + j * scale_bytes, (const uint8_t *)weight->scales + number * scale_bytes, scale_bytes);
            if (weight->zero_points)
                zero_points[j] = weight->zero_points[number] ^ w->flip;
        }
    }
}

static int positive(float x) { return x > 0.0f && x <= 3.402823466e38f; }

static qk_status check_weight(const qk_weight *weight, size_t groups)
{
    const size_t scales = weight->n * groups, codes = weight->n * weight->k;
    uint8_t all = 0, all_zero_points = 0;
    for (size_t i = 0; i < scales; i++) {
        const float scale = weight->scale_bytes == 2 ? qk_float_of_half(((const uint16_t *)weight->scales)[i])
                                                     : ((const float *)weight->scales)[i];
        if (!positive(scale))
            return QK_BAD_SCALE;
        all_zero_points |= weight->zero_points ? weight->zero_points[i] : 0;
    }
    for (size_t i = 0; i < codes; i++)
        all |= weight->codes[i];
    if (all_zero_points >> weight->bits)
        return QK_BAD_ZERO_POINT;
    return all >> weight->bits ? QK_OUT_OF_RANGE : QK_OK;
}

qk_status qk_pack_weight(const qk_weight *weight, void *packed)
{
    qk_packed_weight *header = packed;
    uint64_t total;
    if (!lay_out(weight, header, &total))
        return QK_TOO_LARGE;
    const qk_status status = check_weight(weight, groups_of(header));
    if (status != QK_OK)
        return status;
    packing job = {weight, header};
    const size_t panels = qk_weight_panels(header);
    if (header->k * header->n >= SMALL)
        qk_parallel_for(pack_panel, &job, panels);
    else
        for (size_t panel = 0; panel < panels; panel++)
            pack_panel(&job, panel);
    return QK_OK;
}

void qk_unpack_weight(const void *packed, uint8_t *codes, void *scales, uint8_t *zero_points)
{
    const qk_packed_weight *w = packed;
    const size_t groups = groups_of(w), scale_bytes = w->records.scale_bytes, block = w->records.block;
    const unsigned mask = (1u << bits_of(w)) - 1;
    for (size_t n = 0; n < w->n; n++) {
        const size_t j = n % w->nr;
        const uint8_t *record = qk_weight_panel(w, n / w->nr);
        for (size_t b = 0; b < w->blocks; b++, record += w->records.bytes) {
            const size_t first = b * block, values = w->k - first < block ? w->k - first : block;
            for (size_t p = 0; p < values; p += w->kr) {
                const place at = place_of(w, j, p / w->kr);
                for (size_t i = 0; i < w->kr && p + i < values; i++)
                    codes[n * w->k + first + p + i] = (uint8_t)((record[at.byte + i] >> at.shift & mask) ^ w->flip);
            }
            const size_t number = n * groups + first / w->group;
            const uint8_t *record_scales = record + code_bytes(w);
            memcpy((uint8_t *)scales + number * scale_bytes, record_scales + j * scale_bytes, scale_bytes);
            if (w->records.has_zero_points)
                zero_points[number] = record_scales[w->nr * scale_bytes + j] ^ w->flip;
        }
    }
}

int qk_packed_weight_isa(const void *packed) { return ((const qk_packed_weight *)packed)->isa; }
