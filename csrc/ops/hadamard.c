/* The randomized Hadamard transform of rows: the factors, and rows cut among threads. */
#include <math.h>
#include <stdlib.h>

#include "calls.h"
#include "ops/hadamard.h"
#include "threads.h"

enum { TASK_VALUES = 1 << 15 }; /* some ten microseconds: long against the handing over of a task */

/* Output number i of splitmix64 (Steele, Lea and Flood 2014) that starts at the state `seed`. */
static uint64_t splitmix64(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void qk_set_hadamard_factors(float *factors, size_t k, const uint64_t *seed)
{
    const float scale = (float)(1.0 / sqrt((double)qk_hadamard_block(k))), signed_scale[] = {scale, -scale};
    for (size_t i = 0; i < k; i += 64) {
        const uint64_t word = seed ? splitmix64(*seed, i / 64) : 0;
        const size_t count = k - i < 64 ? k - i : 64;
        for (size_t bit = 0; bit < count; bit++)
            factors[i + bit] = signed_scale[word >> bit & 1];
    }
}

typedef struct job {
    const float *x, *factors;
    size_t rows, k, block, task_rows;
    int inverse;
    float *y;
} job;

static void transform_rows(void *context, size_t i)
{
    const job *j = context;
    const size_t first = i * j->task_rows, left = j->rows - first;
    const size_t end = first + (left < j->task_rows ? left : j->task_rows);
    for (size_t row = first; row < end; row++)
        qk_kernels.hadamard_f32(j->x + row * j->k, j->k, j->block, j->factors, j->inverse, j->y + row * j->k);
}

qk_status qk_hadamard(const float *x, size_t rows, size_t k, const uint64_t *seed, int inverse, float *y)
{
    QK_CALL;
    if (rows == 0 || k == 0)
        return QK_OK;
    float *factors = malloc(k * sizeof *factors); /* no more than a row of x, so that it does not overflow */
    if (!factors)
        return QK_NO_MEMORY;
    const size_t task_rows = k < TASK_VALUES ? TASK_VALUES / k : 1;
    qk_set_hadamard_factors(factors, k, seed);
    job j = {x, factors, rows, k, qk_hadamard_block(k), task_rows, inverse, y};
    const qk_status status = qk_parallel_for(transform_rows, &j, (rows + task_rows - 1) / task_rows);
    free(factors);
    return status;
}
