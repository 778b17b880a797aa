/* Arithmetic of sizes that the drivers share. */
#ifndef QK_SIZES_H
#define QK_SIZES_H

#include <stddef.h>

enum { CACHE_LINE = 64 };

static inline size_t ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

/* Bytes in whole cache lines; less than 2**64 - 63. */
static inline size_t round_up(size_t bytes) { return ceil_div(bytes, CACHE_LINE) * CACHE_LINE; }

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* A stretch of [0, count): the i-th of `parts` nearly equal ones. */
typedef struct range {
    size_t first, end;
} range;

static inline range part_of(size_t count, size_t i, size_t parts)
{
    return (range){count * i / parts, count * (i + 1) / parts};
}

#endif
