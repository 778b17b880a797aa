/* The two sides of a gemm_s8 kernel seen alike: rows of A, or columns of B, in panels of so many lanes. */
#ifndef CHECK_GEMM_OPERAND_H
#define CHECK_GEMM_OPERAND_H

#include "harness.h"

typedef struct operand {
    const char *name;
    qk_gemm_s8_type *gemm;
    int is_b;
    size_t lanes, unit; /* a panel has at most so many lanes, filled up with zeros to a multiple of `unit` */
    size_t kr, bytes;   /* bytes of a packed element */
    size_t alignment;   /* of a panel */
    int by_rows;        /* one lane after the other, instead of groups of kr in turns */
    int is_signed;
    size_t row_bytes;   /* of the panel that is placed: distance of its lanes where by_rows */
    buffer source, panel, sums;
} operand;

void set_operand_a(operand *o, qk_gemm_s8_type *gemm);
void set_operand_b(operand *o, qk_gemm_s8_type *gemm);

static inline int32_t value_of(uint8_t byte, int is_signed)
{
    return is_signed && byte > 127 ? byte - 256 : byte;
}

static inline size_t panel_lanes(const operand *o, size_t count)
{
    return (count + o->unit - 1) / o->unit * o->unit;
}

static inline size_t step_count(const operand *o, size_t k)
{
    return (k + o->kr - 1) / o->kr;
}

/* Where element (lane, p) of a panel of `lanes` lies, in bytes. */
static inline size_t place_of(const operand *o, size_t lanes, size_t lane, size_t p)
{
    if (o->by_rows)
        return lane * o->row_bytes + p * o->bytes;
    return ((p / o->kr * lanes + lane) * o->kr + p % o->kr) * o->bytes;
}

/* Place a panel of `count` lanes and its sums: exactly as large and as aligned as kernels.h says. Rows are `gap`
 * bytes, a multiple of 4, further apart than they have to be. */
void place_panel(operand *o, size_t count, size_t k, size_t gap);

/* Call the packer, to the panel placed last. */
void pack_lanes(const operand *o, const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k,
                uint8_t flip, int32_t *sums);

/* Fill the source of `count` lanes: rows of A [count][k], or columns of B [k][count]. */
void fill_source(operand *o, size_t count, size_t k, enum byte_pattern pattern);

/* Pack `count` lanes of such a source. */
void pack_source(operand *o, size_t count, size_t k, uint8_t flip, size_t gap);

/* A tile of all of both panels but steps and sums. What it prefetches is anywhere, mapped or not. */
qk_gemm_tile tile_of(const operand *a, const operand *b, size_t m, size_t n);

void check_gemm_packers(qk_gemm_s8_type *g);
void check_gemm_run_store(qk_gemm_s8_type *g);

/* Operations a nanosecond of the kernel's own multiply instruction, on registers alone. */
double gemm_peak(qk_gemm_s8_type *g);

/* Time run_store with float32 output. */
stopwatch time_gemm_run_store(qk_gemm_s8_type *g, const qk_gemm_tile *tile);

#endif
