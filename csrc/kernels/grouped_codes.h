/* What the kernels of weights in blocks share before their multiplies. */
#ifndef QK_GROUPED_CODES_H
#define QK_GROUPED_CODES_H

#include "kernels.h"
#include "kernels/unroll.h"

/* How a record stores its codes, constants but for the levels: their bits; whether the bytes to multiply are below 16;
 * whether the record is plain; whether codes in lines are looked up; whether they lie in planes. */
typedef struct coding {
    int bits, small, plain, table, planes;
    const uint8_t *levels;
} coding;

/* Ask for what follows these codes, AHEAD bytes before its use: with few rows reading the weight is the work. */
QK_INLINE void prefetch_codes(const uint8_t *codes, const size_t bytes)
{
    enum { LINE = 64, AHEAD = 4096 };
    QK_UNROLL8(p, (bytes + LINE - 1) / LINE, {
        __builtin_prefetch((const void *)((uintptr_t)codes + AHEAD + p * LINE), 0, 3);
    })
}

#endif
