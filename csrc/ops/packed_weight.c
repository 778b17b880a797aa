/* Pack the codes, scales and zero points of a weight into the panels of the selected ISA's kernel, and unpack them
 * again. */
#include "packed_weight.h"

#include <string.h>

#include "calls.h"
#include "float16.h"
#include "ops/sizes.h"
#include "threads.h"

enum { UNIT = 32 /* blocks are multiples of it */, SMALL = 1 << 18, LEVEL_ZERO = 128 };

size_t qk_weight_block(size_t k, size_t group)
{
    if (group == 0 || group >= k) {
        const size_t parts = k ? ceil_div(k, QK_LARGEST_BLOCK) : 1, part = k ? ceil_div(k, parts) : 1;
        return ceil_div(part, UNIT) * UNIT;
    }
    size_t block = QK_LARGEST_BLOCK;
    while (group % block)
        block -= UNIT;
    return block;
}

/* What the codes of each coding are. */
typedef enum kind { SPACED, SIGNS, TABLE, TRELLIS, FINE } kind;

static const struct {
    uint8_t kind, bits;
} codings[] = {
    [QK_CODES_U8] = {SPACED, 8},        [QK_CODES_U4] = {SPACED, 4},        [QK_CODES_U2] = {SPACED, 2},
    [QK_CODES_U1] = {SIGNS, 1},         [QK_CODES_TABLE] = {TABLE, 4},      [QK_CODES_TRELLIS2] = {TRELLIS, 2},
    [QK_CODES_TRELLIS3] = {TRELLIS, 3}, [QK_CODES_TRELLIS4] = {TRELLIS, 4}, [QK_CODES_FINE2] = {FINE, 2},
    [QK_CODES_FINE3] = {FINE, 3},       [QK_CODES_FINE4] = {FINE, 4},
};

static kind kind_of(const qk_packed_weight *w) { return codings[w->codes].kind; }
static unsigned bits_of(const qk_packed_weight *w) { return codings[w->codes].bits; }

/* The header of a packed weight; 0 when a size overflows. */
static int lay_out(const qk_weight *weight, qk_weight_layout layout, qk_packed_weight *w, uint64_t *total)
{
    const unsigned bits = codings[weight->coding].bits;
    const kind kind = codings[weight->coding].kind;
    const uint32_t block = (uint32_t)qk_weight_block(weight->k, weight->group);
    const uint64_t blocks = ceil_div(weight->k, block);
    const int is_one_group = weight->group == 0 || weight->group >= weight->k;
    *w = (qk_packed_weight){
        .n = weight->n,
        .k = weight->k,
        .levels = round_up(sizeof *w),
        .group = is_one_group ? (blocks ? blocks : 1) * block : weight->group,
        .records = {
            .block = block,
            .scale_bytes = (uint8_t)weight->scale_bytes,
            .has_zero_points = weight->zero_points != NULL,
            .row_tables = weight->row_tables != 0,
            .window = (uint8_t)weight->window,
        },
        .blocks = (uint32_t)blocks,
        .codes = (uint8_t)weight->coding,
        .nr = layout.nr,
        .kr = layout.kr,
        .bytes_signed = layout.bytes_signed,
        .lanes = layout.lanes,
        .zero = (uint8_t)(kind == SIGNS ? 1 : kind == SPACED ? 1 << (bits - 1) : LEVEL_ZERO),
        .flip = (bits == 8 || kind >= TABLE) && layout.bytes_signed ? 0x80 : 0,
    };
    w->panels = w->levels + (kind == TRELLIS ? QK_STATE_BITS * QK_STATES : kind == TABLE ? CACHE_LINE : 0);
    w->table_bytes = weight->row_tables ? (uint64_t)layout.nr * QK_TABLE : 0;
    w->records.bytes = layout.nr * ((size_t)block * bits / 8 + w->records.scale_bytes + w->records.has_zero_points);
    uint64_t bytes;
    if (blocks > UINT32_MAX || weight->n > PTRDIFF_MAX || __builtin_mul_overflow(blocks, w->records.bytes, &bytes) ||
        __builtin_add_overflow(bytes, w->table_bytes + CACHE_LINE - 1, &bytes))
        return 0;
    w->panel_bytes = bytes / CACHE_LINE * CACHE_LINE;
    return !__builtin_mul_overflow(qk_weight_panels(w), w->panel_bytes, total) &&
           !__builtin_add_overflow(*total, w->panels, total) && *total <= PTRDIFF_MAX;
}

qk_weight_layout qk_own_weight_layout(void) { return qk_layout_of(qk_kernels.gemm_grouped); }

/* What places of codes and tables take for granted. */
static int is_layout(qk_weight_layout layout, int row_tables)
{
    const unsigned kr = layout.kr;
    if (!layout.nr || (kr != 1 && kr != 2 && kr != 4 && kr != 8) || layout.bytes_signed > 1 || !layout.lanes)
        return 0;
    return !row_tables || layout.nr % (QK_TABLE / kr * layout.lanes) == 0;
}

qk_status qk_packed_weight_size(const qk_weight *shape, qk_weight_layout layout, size_t *bytes)
{
    qk_packed_weight header;
    uint64_t total;
    if (!is_layout(layout, shape->row_tables))
        return QK_FOREIGN_LAYOUT;
    if (!lay_out(shape, layout, &header, &total))
        return QK_TOO_LARGE;
    *bytes = (size_t)total;
    return QK_OK;
}

/* ------------------------------------------------------------------------------------------------- packing */

typedef struct packing {
    const qk_weight *weight;
    const qk_packed_weight *header;
    uint8_t *packed;
} packing;

static size_t groups_of(const qk_packed_weight *w) { return ceil_div(w->k, w->group); }

/* The bytes of a record before its scales. */
static size_t code_bytes(const qk_packed_weight *w) { return (size_t)w->records.block * w->nr * bits_of(w) / 8; }

/* Where a code is in a record, or a byte of a stream. */
typedef struct place {
    size_t byte;
    unsigned shift;
} place;

/* Of the kr codes of column j in one step of lines: the first one. */
static place place_in_lines(const qk_packed_weight *w, size_t j, size_t step)
{
    const unsigned bits = bits_of(w), per_byte = 8 / bits;
    return (place){(step / per_byte * w->nr + j) * w->kr, (unsigned)(step % per_byte) * bits};
}

/* Of byte i of plane p, counted from the record's first chunk. */
static size_t place_in_planes(const qk_packed_weight *w, size_t j, size_t p, size_t i) { return (p * w->nr + j) * 4 + i; }

/* Of byte b of a block's stream. */
static size_t place_of_stream(const qk_packed_weight *w, size_t j, size_t b)
{
    const size_t bits = bits_of(w), chunk = b / (4 * bits), at = b % (4 * bits);
    if (kind_of(w) == FINE)
        return place_in_planes(w, j, b / 4, b % 4);
    return place_in_planes(w, j, chunk * bits + at % bits, at / bits);
}

/* Whole lines of one column: in each one word of kr bytes, which holds per_byte words of plain codes, each in bits of
 * its own. bits and kr are constants, flip is 0 or 0x80 in each byte. */
QK_INLINE void move_lines(const unsigned bits, const unsigned kr, size_t lines, size_t nr, uint64_t flip,
                          uint8_t *record, uint8_t *row, const int pack)
{
    const unsigned per_byte = 8 / bits;
    const uint64_t mask = 0x0101010101010101u * ((1u << bits) - 1);
    for (size_t line = 0; line < lines; line++, record += nr * kr, row += per_byte * kr) {
        uint64_t packed = 0;
        if (!pack)
            memcpy(&packed, record, kr);
        for (unsigned s = 0; s < per_byte; s++) {
            uint64_t plain = 0;
            if (pack) {
                memcpy(&plain, row + s * kr, kr);
                packed |= (plain ^ flip) << s * bits;
            } else {
                plain = (packed >> s * bits & mask) ^ flip;
                memcpy(row + s * kr, &plain, kr);
            }
        }
        if (pack)
            memcpy(record, &packed, kr);
    }
}

#define FOR_BITS(kr)                                                                                         \
    switch (bits) {                                                                                          \
    case 2: move_lines(2, kr, lines, nr, flip, record, row, pack); break;                                    \
    case 4: move_lines(4, kr, lines, nr, flip, record, row, pack); break;                                    \
    default: move_lines(8, kr, lines, nr, flip, record, row, pack); break;                                   \
    }

QK_INLINE void move_lines_of(unsigned bits, unsigned kr, size_t lines, size_t nr, uint64_t flip, uint8_t *record,
                             uint8_t *row, const int pack)
{
    switch (kr) {
    case 1: FOR_BITS(1) break;
    case 2: FOR_BITS(2) break;
    case 4: FOR_BITS(4) break;
    default: FOR_BITS(8) break;
    }
}

#undef FOR_BITS

/* One row's codes between plain arrays and column j of a record: block `b` of it. */
static void move_codes(const qk_packed_weight *w, size_t b, size_t j, uint8_t *record, uint8_t *row, const int pack)
{
    const size_t block = w->records.block, first = b * block, values = w->k - first < block ? w->k - first : block;
    const unsigned bits = bits_of(w), mask = (1u << bits) - 1;
    const uint8_t flip = kind_of(w) == SPACED ? w->flip : 0; /* others are no bytes to multiply, but select one */
    if (kind_of(w) >= TRELLIS) {
        const size_t bytes = block * bits / 8;
        for (size_t i = 0; i < bytes; i++) {
            uint8_t *byte = record + place_of_stream(w, j, i);
            *(pack ? byte : row + b * bytes + i) = pack ? row[b * bytes + i] : *byte;
        }
        return;
    }
    const size_t run = kind_of(w) == SIGNS ? 1 : w->kr;
    size_t p = 0;
    if (kind_of(w) != SIGNS) {
        const size_t lines = values * bits / 8 / run;
        const uint64_t flips = 0x0101010101010101u * flip;
        uint8_t *column = record + place_in_lines(w, j, 0).byte, *codes = row + first;
        if (pack)
            move_lines_of(bits, w->kr, lines, w->nr, flips, column, codes, 1);
        else
            move_lines_of(bits, w->kr, lines, w->nr, flips, column, codes, 0);
        p = lines * run * 8 / bits;
    }
    for (; p < values; p += run) { /* those of the last line, and signs */
        const place at = kind_of(w) == SIGNS
                             ? (place){place_in_planes(w, j, p / UNIT, p % 4), (unsigned)(p % UNIT / 4)}
                             : place_in_lines(w, j, p / w->kr);
        for (size_t i = 0; i < run && p + i < values; i++) {
            uint8_t *code = row + first + p + i;
            if (pack)
                record[at.byte + i] |= (uint8_t)((*code ^ flip) << at.shift);
            else
                *code = (uint8_t)((record[at.byte + i] >> at.shift & mask) ^ flip);
        }
    }
}

/* The bytes of a row of codes. */
static size_t row_bytes(const qk_packed_weight *w)
{
    return kind_of(w) >= TRELLIS ? (size_t)w->blocks * w->records.block * bits_of(w) / 8 : w->k;
}

/* A level as the byte to multiply. */
static uint8_t level_byte(const qk_packed_weight *w, int8_t level) { return (uint8_t)(level + LEVEL_ZERO) ^ w->flip; }

/* A task: one panel. */
static void pack_panel(void *context, size_t panel)
{
    const packing *job = context;
    const qk_weight *weight = job->weight;
    const qk_packed_weight *w = job->header;
    const size_t col = panel * w->nr, count = w->n - col < w->nr ? w->n - col : w->nr;
    const size_t scale_bytes = w->records.scale_bytes, groups = groups_of(w);
    const qk_weight_layout layout = {w->nr, w->kr, w->bytes_signed, w->lanes};
    uint8_t *record = job->packed + qk_weight_panel(w, panel), *levels = job->packed + qk_weight_levels(w, panel);
    memset(record - w->table_bytes, 0, w->panel_bytes);
    for (size_t j = 0; w->records.row_tables && j < count; j++)
        for (size_t c = 0; c < QK_TABLE; c++)
            levels[qk_row_table_at(layout, j) + c] = level_byte(w, weight->levels[(col + j) * QK_TABLE + c]);
    for (size_t b = 0; b < w->blocks; b++, record += w->records.bytes) {
        const size_t group = b * w->records.block / w->group;
        uint8_t *scales = record + code_bytes(w), *zero_points = scales + w->nr * scale_bytes;
        for (size_t j = 0; j < count; j++) {
            move_codes(w, b, j, record, (uint8_t *)weight->codes + (col + j) * row_bytes(w), 1);
            const size_t number = (col + j) * groups + group;
            memcpy(scales + j * scale_bytes, (const uint8_t *)weight->scales + number * scale_bytes, scale_bytes);
            if (weight->zero_points)
                zero_points[j] = weight->zero_points[number] ^ w->flip;
        }
    }
}

/* The levels that all rows share. */
static void pack_levels(const qk_weight *weight, const qk_packed_weight *w, uint8_t *packed)
{
    uint8_t *levels = packed + w->levels;
    if (kind_of(w) == TABLE && !w->records.row_tables)
        for (size_t c = 0; c < QK_TABLE; c++)
            levels[c] = level_byte(w, weight->levels[c]);
    for (size_t m = 0; kind_of(w) == TRELLIS && m < QK_STATE_BITS; m++)
        for (size_t x = 0; x < QK_STATES; x++) {
            const size_t state = (x >> m | x << (QK_STATE_BITS - m)) % QK_STATES;
            levels[m * QK_STATES + x] = level_byte(w, weight->levels[state]);
        }
}

static int positive(float x) { return x > 0.0f && x <= 3.402823466e38f; }

static qk_status check_weight(const qk_weight *weight, const qk_packed_weight *w)
{
    const size_t scales = weight->n * groups_of(w), codes = weight->n * row_bytes(w);
    const unsigned bits = kind_of(w) >= TRELLIS ? 8 : bits_of(w); /* of what is checked */
    uint8_t all = 0, all_zero_points = 0;
    for (size_t i = 0; i < scales; i++) {
        const float scale = weight->scale_bytes == 2 ? qk_float_of_half(((const uint16_t *)weight->scales)[i])
                                                     : ((const float *)weight->scales)[i];
        if (!positive(scale))
            return QK_BAD_SCALE;
        all_zero_points |= weight->zero_points ? weight->zero_points[i] : 0;
    }
    for (size_t first = 0; first < codes; first += QK_WORK_BETWEEN_QUESTIONS) {
        const size_t end = least(codes, first + QK_WORK_BETWEEN_QUESTIONS);
        for (size_t i = first; i < end; i++)
            all |= weight->codes[i];
        if (end < codes && qk_interrupted())
            return QK_INTERRUPTED;
    }
    if (all_zero_points >> bits)
        return QK_BAD_ZERO_POINT;
    return all >> bits ? QK_OUT_OF_RANGE : QK_OK;
}

qk_status qk_pack_weight(const qk_weight *weight, qk_weight_layout layout, qk_packed_weight *header, void *packed)
{
    QK_CALL;
    uint64_t total;
    if (!lay_out(weight, layout, header, &total))
        return QK_TOO_LARGE;
    const qk_status status = check_weight(weight, header);
    if (status != QK_OK)
        return status;
    packing job = {weight, header, packed};
    const size_t panels = header->panel_bytes ? qk_weight_panels(header) : 0; /* 2**60 rows of no values take no memory */
    memcpy(packed, header, sizeof *header);
    pack_levels(weight, header, packed);
    if (header->k * header->n >= SMALL)
        return qk_parallel_for(pack_panel, &job, panels);
    for (size_t panel = 0; panel < panels; panel++)
        pack_panel(&job, panel);
    return QK_OK;
}

qk_status qk_unpack_weight(const qk_packed_weight *w, const void *packed, uint8_t *codes, void *scales,
                           uint8_t *zero_points)
{
    QK_CALL;
    size_t work = 0;
    const size_t groups = groups_of(w), scale_bytes = w->records.scale_bytes;
    for (size_t n = 0; w->blocks > 0 && n < w->n; n++) {
        const size_t j = n % w->nr;
        uint8_t *record = (uint8_t *)packed + qk_weight_panel(w, n / w->nr); /* only read */
        for (size_t b = 0; b < w->blocks; b++, record += w->records.bytes) {
            move_codes(w, b, j, record, codes + n * row_bytes(w), 0);
            const size_t number = n * groups + b * w->records.block / w->group;
            const uint8_t *record_scales = record + code_bytes(w);
            memcpy((uint8_t *)scales + number * scale_bytes, record_scales + j * scale_bytes, scale_bytes);
            if (w->records.has_zero_points)
                zero_points[number] = record_scales[w->nr * scale_bytes + j] ^ w->flip;
        }
        if (qk_interrupted_after(&work, w->k))
            return QK_INTERRUPTED;
    }
    return QK_OK;
}

qk_status qk_check_packed_weight(const qk_weight *shape, qk_weight_layout layout, const void *packed, size_t bytes,
                                 qk_packed_weight *header)
{
    uint64_t total;
    return is_layout(layout, shape->row_tables) && bytes >= sizeof *header && lay_out(shape, layout, header, &total) &&
                   bytes == total && memcmp(header, packed, sizeof *header) == 0
               ? QK_OK
               : QK_FOREIGN_LAYOUT;
}
