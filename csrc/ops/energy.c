/* The sum of squares: of weights and of their errors, for the figures of a report. */
#include "calls.h"
#include "ops/sizes.h"

enum { LANES = 16 }; /* sums at a time, so that compilers can use vectors: of any length, with the same result */

/* A square of a float32 is exact in a double, so that neither an order of operations nor a fused one is left to chance. */
qk_status qk_energy(const float *x, size_t n, double *energy)
{
    QK_CALL;
    double sums[LANES] = {0};
    const size_t whole = n - n % LANES;
    for (size_t first = 0; first < whole; first += QK_WORK_BETWEEN_QUESTIONS) {
        const size_t end = least(whole, first + QK_WORK_BETWEEN_QUESTIONS);
        for (size_t i = first; i < end; i += LANES)
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += (double)x[i + lane] * x[i + lane];
        if (end < whole && qk_interrupted())
            return QK_INTERRUPTED;
    }
    for (size_t i = whole; i < n; i++)
        sums[i - whole] += (double)x[i] * x[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++)
            sums[lane] += sums[lane + half];
    *energy = sums[0];
    return QK_OK;
}
