/* The packed weight of a linear layer: one flat, position-independent buffer, so that it can be copied, stored and
 * mapped from a file.
 *
 *      qk_packed_weight header | levels | panel 0: tables of its rows, record 0, record 1, ... | panel 1 | ...
 *
 * Panels, records and levels: kernels.h; there are either levels, or tables of rows, or neither. Each panel starts at a
 * multiple of 64 bytes. Columns past n and values past k have bits 0; columns past n have scale 0.
 *
 * The header in front is for files: it is compared once, and then the one that is kept apart (qk_packed_weight in
 * qkernels.h) tells where things are. Every other byte may have any value, at any time: codes are masked before they
 * select a level, and levels, scales and zero points enter nothing but sums.
 */
#ifndef QK_PACKED_WEIGHT_H
#define QK_PACKED_WEIGHT_H

#include "kernels.h"

enum { QK_LARGEST_BLOCK = 256 }; /* of values along k whose sums are exact */

/* Part of files: a change makes a new version of them. */
_Static_assert(sizeof(qk_packed_weight) == 88 && sizeof(size_t) == 8, "a header without padding, of 64-bit machines");

/* Where the records of a panel start. */
static inline size_t qk_weight_panel(const qk_packed_weight *w, size_t panel)
{
    return w->panels + panel * w->panel_bytes + w->table_bytes;
}

/* Where the levels for a panel start. */
static inline size_t qk_weight_levels(const qk_packed_weight *w, size_t panel)
{
    return w->records.row_tables ? w->panels + panel * w->panel_bytes : w->levels;
}

static inline size_t qk_weight_panels(const qk_packed_weight *w) { return (w->n + w->nr - 1) / w->nr; }

#endif
