/* sum_u32. */
#include "harness.h"

static buffer x_buffer = {.name = "x"};

static uint32_t plain_sum(const uint32_t *x, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return (uint32_t)sum;
}

/* Random words sum up right only if each is read once, with its weight: a word left out or read twice shows. */
void check_sum_u32(const kernel_row *row)
{
    qk_sum_u32_type *oracle = ORACLE(row, sum_u32, plain_sum);
    for (size_t blocks = 0; blocks <= 5; blocks++)
        for (size_t variant = 0; variant < SIDE_COUNT * 4; variant++) {
            const size_t n = blocks * QK_SUM_BLOCK, offset = variant / SIDE_COUNT;
            if (!begin_case(variant % SIDE_COUNT, offset, "n=%zu offset=%zu", n, offset))
                continue;
            uint32_t *x = place(&x_buffer, n, sizeof *x);
            for (size_t i = 0; i < n; i++)
                x[i] = (uint32_t)random_bits();
            freeze(&x_buffer);
            expect_equal("the sum", row->kernel.sum_u32(x, n), oracle(x, n));
        }
}

timing bench_sum_u32(kernel_pointer kernel)
{
    static uint32_t x[16 * QK_SUM_BLOCK];
    const size_t n = sizeof x / sizeof *x;
    volatile uint32_t sum = 0;
    stopwatch w = {0};
    while (keep_timing(&w))
        sum = sum + kernel.sum_u32(x, n);
    return timing_of(&w, (double)n, ELEMENTS);
}
