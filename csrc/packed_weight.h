/* The packed weight of a linear layer: one flat, position-independent buffer, so that it can be copied, stored and
 * mapped from a file.
 *
 *      qk_packed_weight header | panel 0: record 0, record 1, ... | panel 1 | ...
 *
 * Panels and records: qk_records in kernels.h. Each panel starts at a multiple of 64 bytes. Columns past n and
 * values past k have bits 0; columns past n have scale 0.
 */
#ifndef QK_PACKED_WEIGHT_H
#define QK_PACKED_WEIGHT_H

#include "kernels.h"

typedef struct qk_packed_weight {
    uint64_t n, k;
    uint64_t panels, panel_bytes; /* offset of panel 0, distance of panels */
    uint64_t group;               /* values that share a scale: a multiple of records.block, or k rounded up to one */
    qk_records records;
    uint32_t blocks; /* records of a panel */
    uint8_t codes;   /* a qk_codes */
    uint8_t isa, nr, kr;
    uint8_t zero; /* the code that means 0.0, where the weight has no zero points of its own */
    uint8_t flip; /* 0x80 where the kernel multiplies int8: codes are stored as code ^ 0x80 */
} qk_packed_weight;

static inline uint8_t *qk_weight_panel(const qk_packed_weight *w, size_t panel)
{
    return (uint8_t *)w + w->panels + panel * w->panel_bytes;
}

static inline size_t qk_weight_panels(const qk_packed_weight *w) { return (w->n + w->nr - 1) / w->nr; }

#endif
