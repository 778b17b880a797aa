/* From the sums of a row to its output; the formula is qk_finish_f32_type's. */
#include "kernels.h"
#include "requant.h"

int qk_finish_f32_scalar(const float *sums, size_t ld, size_t rows, size_t n, float scale, const float *bias,
                         float low, float high, float *out)
{
    int not_finite = 0;
    for (size_t j = 0; j < n; j++) {
        float sum = sums[j];
        for (size_t r = 1; r < rows; r++)
            sum += sums[r * ld + j];
        const float y = sum * scale + bias[j];
        not_finite |= !isfinite(y);
        out[j] = qk_clamp_f32(y, low, high);
    }
    return not_finite;
}
