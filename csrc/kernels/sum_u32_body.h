/* The sum of n words, once for all SIMD ISAs (see affine_f32_body.h), as fast as memory can be read.
 *
 *      x:  | stream 0 | stream 1 | ... | stream 7 |     two vectors of each stream in turn, into eight sums
 *
 * Why eight streams: each lies in other pages, and the hardware prefetchers follow a page each, so that more of them
 * fetch at once. On an Ice Lake core one stream reads DRAM at 11.4 GB/s and eight at 14.7; from L2 and L3 both are
 * about equally fast, and software prefetches slow L2 down without gain elsewhere. Two vectors a turn: a whole line
 * where a vector has 32 bytes, and half the loop's overhead.
 */
#ifndef QK_SUM_U32_BODY_H
#define QK_SUM_U32_BODY_H

#include "kernels.h"
#include "kernels/unroll.h"

QK_INLINE uint32_t sum_streams(const int32_t *x, size_t n)
{
    enum { STREAMS = 8, TURN = 2 * LANES };
    _Static_assert(QK_SUM_BLOCK % (STREAMS * TURN) == 0, "no tail in any stream");
    const size_t length = n / STREAMS;
    vi sum[STREAMS];
    QK_UNROLL8(s, STREAMS, sum[s] = vi_set1(0);)
    for (size_t i = 0; i < length; i += TURN) {
        QK_UNROLL8(s, STREAMS, {
            sum[s] = vi_add(sum[s], vi_load(x + s * length + i));
            sum[s] = vi_add(sum[s], vi_load(x + s * length + i + LANES));
        })
    }

    vi total = vi_set1(0);
    QK_UNROLL8(s, STREAMS, total = vi_add(total, sum[s]);)
    int32_t lanes[LANES];
    vi_store(lanes, total);
    uint32_t result = 0;
    for (int lane = 0; lane < LANES; lane++)
        result += (uint32_t)lanes[lane];
    return result;
}

#define QK_DEFINE_SUM(isa)                                                                                   \
    uint32_t qk_sum_u32_##isa(const uint32_t *x, size_t n) { return sum_streams((const int32_t *)x, n); }

#endif
