/* The packed weight of a linear layer: one flat, position-independent buffer, so that it can be copied, stored and
 * mapped from a file.
 *
 *      qk_packed_weight header | levels | panel 0: tables of its rows, record 0, record 1, ... | panel 1 | ...
 *
 * Panels, records and levels: kernels.h; there are either levels, or tables of rows, or neither. Each panel starts at a
 * multiple of 64 bytes. Columns past n and values past k have bits 0; columns past n have scale 0.
 */
#ifndef QK_PACKED_WEIGHT_H
#define QK_PACKED_WEIGHT_H

#include "kernels.h"

enum { QK_LARGEST_BLOCK = 256 }; /* of values along k whose sums are exact */

typedef struct qk_packed_weight {
    uint64_t n, k;
    uint64_t levels;              /* offset */
    uint64_t panels, panel_bytes; /* offset of panel 0, distance of panels */
    uint64_t table_bytes;         /* of a panel, before its first record */
    uint64_t group;               /* values that share a scale: a multiple of records.block, or k rounded up to one */
    qk_records records;
    uint32_t blocks; /* records of a panel */
    uint8_t codes;   /* a qk_codes */
    uint8_t nr, kr, bytes_signed, lanes; /* a qk_weight_layout */
    uint8_t zero; /* the byte that means 0.0, where the weight has no zero points of its own */
    uint8_t flip; /* 0x80 where the kernel multiplies int8: bytes are stored ^ 0x80 */
    uint8_t unused[5];
} qk_packed_weight;

/* Part of files: a change makes a new version of them. */
_Static_assert(sizeof(qk_packed_weight) == 88 && sizeof(size_t) == 8, "a header without padding, of 64-bit machines");

/* The records of a panel. */
static inline uint8_t *qk_weight_panel(const qk_packed_weight *w, size_t panel)
{
    return (uint8_t *)w + w->panels + panel * w->panel_bytes + w->table_bytes;
}

/* The levels for a panel. */
static inline uint8_t *qk_weight_levels(const qk_packed_weight *w, size_t panel)
{
    return w->records.row_tables ? qk_weight_panel(w, panel) - w->table_bytes : (uint8_t *)w + w->levels;
}

static inline size_t qk_weight_panels(const qk_packed_weight *w) { return (w->n + w->nr - 1) / w->nr; }

#endif
