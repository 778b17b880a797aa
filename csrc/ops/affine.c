/* Drivers of the elementwise operations: cut an array into runs that share a scale (or into rows with a scale a
 * column) and give each run to a kernel. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "kernels.h"
#include "ops/affine.h"
#include "ops/sizes.h"
#include "requant.h"

enum { PIECE = 1 << 16 /* values that a kernel is given at most */ };

/* One run: n values from `at` on, with scale number `index` (or with _cols numbers index..index + n). */
typedef struct run {
    size_t at, n, index;
} run;

/* Where the next run starts, and its scale; all 0 before the first. Counted up, since a division for each run takes
 * longer than what is done with a short one. */
typedef struct runs {
    size_t row, col, of_block, channel, index;
    size_t work; /* since it was asked whether the call is to end; */
    int is_interrupted;
} runs;

static int next_run(const qk_layout *l, runs *state, run *r)
{
    if (state->row == l->rows || l->cols == 0 || state->is_interrupted)
        return 0;
    const size_t left = least(l->cols - state->col, l->block ? l->block - state->of_block : l->cols);
    r->at = state->row * l->cols + state->col;
    r->n = least(left, PIECE);
    r->index = l->block ? state->index : state->col;
    state->col += r->n;
    state->of_block += r->n;
    if (r->n == left) {
        state->of_block = 0;
        state->index++;
    }
    if (state->col == l->cols) {
        state->col = 0;
        state->row++;
        if (++state->channel == l->channels)
            state->channel = state->index = 0;
    }
    state->is_interrupted = qk_interrupted_after(&state->work, r->n);
    return 1;
}

/* What comes of all runs, if `bad` values were met or not. */
static qk_status status_of(const runs *state, int bad, qk_status status_of_bad)
{
    return state->is_interrupted ? QK_INTERRUPTED : bad ? status_of_bad : QK_OK;
}

static qk_status check_parameters(const qk_layout *l, qk_qtype type, const float *scale, const int32_t *zero_point)
{
    for (size_t i = 0, count = l->scales; i < count; i++) {
        if (!(scale[i] > 0.0f && scale[i] < INFINITY))
            return QK_BAD_SCALE;
        if (zero_point[i] < type.qmin || zero_point[i] > type.qmax)
            return QK_BAD_ZERO_POINT;
    }
    return QK_OK;
}

/* Scale and zero point for values in [low, high], a range that contains 0 (ONNX DynamicQuantizeLinear; symmetric:
 * PyTorch's and TFLite's). Float32 throughout. The sign of a zero bound cannot reach the result: it would only show
 * in low / scale, which is then subtracted from an integer. */
static void qparams_of_range(float low, float high, qk_qtype type, qk_scheme scheme, float *scale,
                             int32_t *zero_point)
{
    const float smallest_normal = 0x1p-126f; /* below, division by the scale would lose precision or overflow */
    float steps = (float)(type.qmax - type.qmin);
    float s;
    if (scheme.symmetric) {
        float amax = -low > high ? -low : high;
        s = amax / (scheme.full_range ? steps / 2 : (steps - 1) / 2);
        *zero_point = type.is_signed ? 0 : (type.qmax + 1) / 2;
    } else {
        s = (high - low) / steps;
        if (isinf(s))
            s = high / steps - low / steps;
    }
    s = low == 0.0f && high == 0.0f ? 1.0f : s < smallest_normal ? smallest_normal : s;
    if (!scheme.symmetric)
        *zero_point =
            qk_round_s32(qk_clamp_f32((float)type.qmin - low / s, (float)type.qmin, (float)type.qmax));
    *scale = s;
}

qk_status qk_ranges(const float *x, const qk_layout *l, float *low, float *high)
{
    QK_CALL;
    const size_t count = l->scales;
    runs state = {0};
    int bad = 0;
    memset(low, 0, count * sizeof *low);
    memset(high, 0, count * sizeof *high);
    for (run r; next_run(l, &state, &r);)
        bad |= (l->block ? qk_kernels.minmax_f32 : qk_kernels.minmax_cols_f32)(x + r.at, r.n, low + r.index,
                                                                              high + r.index);
    for (size_t i = 0; i < count; i++)
        bad |= isinf(low[i]) || isinf(high[i]);
    return status_of(&state, bad, QK_NOT_FINITE);
}

qk_status qk_qparams_of_ranges(const float *low, const float *high, size_t count, qk_qtype type, qk_scheme scheme,
                               float *scale, int32_t *zero_point)
{
    QK_CALL;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(low[i]) || !isfinite(high[i]))
            return QK_NOT_FINITE;
        qparams_of_range(low[i] < 0.0f ? low[i] : 0.0f, high[i] > 0.0f ? high[i] : 0.0f, type, scheme, scale + i,
                         zero_point + i);
    }
    return QK_OK;
}

qk_status qk_choose_qparams(const float *x, const qk_layout *l, qk_qtype type, qk_scheme scheme, float *scale,
                            int32_t *zero_point)
{
    QK_CALL;
    const size_t count = l->scales;
    float *low = malloc((2 * count + 1) * sizeof *low), *high = low + count;
    if (!low)
        return QK_NO_MEMORY;
    qk_status status = qk_ranges(x, l, low, high);
    if (status == QK_OK)
        status = qk_qparams_of_ranges(low, high, count, type, scheme, scale, zero_point);
    free(low);
    return status;
}

static qk_status quantize_runs(const float *x, const qk_layout *l, qk_qtype type, const float *scale,
                               const int32_t *zero_point, uint8_t *q)
{
    runs state = {0};
    int nan = 0;
    for (run r; next_run(l, &state, &r);)
        nan |= (l->block ? qk_kernels.quantize_f32 : qk_kernels.quantize_cols_f32)(
            x + r.at, r.n, scale + r.index, zero_point + r.index, type, q + r.at);
    return status_of(&state, nan, QK_NAN);
}

qk_status qk_quantize(const float *x, const qk_layout *l, qk_qtype type, const float *scale,
                      const int32_t *zero_point, uint8_t *q)
{
    QK_CALL;
    const qk_status status = check_parameters(l, type, scale, zero_point);
    return status == QK_OK ? quantize_runs(x, l, type, scale, zero_point, q) : status;
}

qk_status qk_dequantize(const uint8_t *q, const qk_layout *l, qk_qtype type, const float *scale,
                        const int32_t *zero_point, float *x)
{
    QK_CALL;
    const qk_status status = check_parameters(l, type, scale, zero_point);
    if (status != QK_OK)
        return status;
    runs state = {0};
    for (run r; next_run(l, &state, &r);)
        (l->block ? qk_kernels.dequantize_f32 : qk_kernels.dequantize_cols_f32)(
            q + r.at, r.n, scale + r.index, zero_point + r.index, type.is_signed, x + r.at);
    return status_of(&state, 0, QK_OK);
}

qk_status qk_fake_quantize(const float *x, const qk_layout *l, qk_qtype type, const float *scale,
                           const int32_t *zero_point, float *y)
{
    QK_CALL;
    const qk_status status = check_parameters(l, type, scale, zero_point);
    if (status != QK_OK)
        return status;
    runs state = {0};
    int nan = 0;
    for (run r; next_run(l, &state, &r);)
        nan |= (l->block ? qk_kernels.fake_quantize_f32 : qk_kernels.fake_quantize_cols_f32)(
            x + r.at, r.n, scale + r.index, zero_point + r.index, type, y + r.at);
    return status_of(&state, nan, QK_NAN);
}

/* A sum from its lanes, the second half of which is added to the first until one is left. */
static double sum_of_lanes(double *lanes)
{
    for (size_t half = QK_GRAD_LANES / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

/* A run adds its value number i to lane i % 8 of its scale, one run after another; a column is a run of one value in
 * each row, so that it has lane 0 alone. */
qk_status qk_fake_quantize_grad(const float *dy, const float *x, const qk_layout *l, qk_qtype type, const float *scale,
                                const int32_t *zero_point, float *dx, double *dscale, double *dclip)
{
    QK_CALL;
    const qk_status status = check_parameters(l, type, scale, zero_point);
    if (status != QK_OK)
        return status;
    const size_t lanes = l->block && dscale ? QK_GRAD_LANES : 0;
    double *scratch = NULL;
    if (lanes && !(scratch = calloc(2 * lanes * l->scales + 1, sizeof *scratch)))
        return QK_NO_MEMORY;
    for (size_t i = 0; dscale && i < l->scales; i++)
        dscale[i] = dclip[i] = 0.0;
    runs state = {0};
    int nan = 0;
    for (run r; next_run(l, &state, &r);) {
        double *sums = lanes ? scratch + 2 * lanes * r.index : NULL;
        if (l->block)
            nan |= qk_kernels.fake_grad_f32(dy + r.at, x + r.at, r.n, scale + r.index, zero_point + r.index, type,
                                            dx + r.at, sums, sums ? sums + lanes : NULL);
        else
            nan |= qk_kernels.fake_grad_cols_f32(dy + r.at, x + r.at, r.n, scale + r.index, zero_point + r.index, type,
                                                 dx + r.at, dscale ? dscale + r.index : NULL,
                                                 dclip ? dclip + r.index : NULL);
    }
    for (size_t i = 0; lanes && i < l->scales; i++) {
        dscale[i] = sum_of_lanes(scratch + 2 * lanes * i);
        dclip[i] = sum_of_lanes(scratch + 2 * lanes * i + lanes);
    }
    free(scratch);
    return status_of(&state, nan, QK_NAN);
}

qk_status qk_dynamic_quantize_row(const float *x, size_t n, size_t block, qk_qtype type, qk_scheme scheme, uint8_t *q,
                                  float *scale, int32_t *zero_point)
{
    for (; n > 0; x += block, q += block, scale++, zero_point++) {
        float low = 0.0f, high = 0.0f;
        block = least(block, n);
        n -= block;
        if (qk_kernels.minmax_f32(x, block, &low, &high) || isinf(low) || isinf(high))
            return QK_NOT_FINITE;
        qparams_of_range(low, high, type, scheme, scale, zero_point);
        qk_kernels.quantize_f32(x, block, scale, zero_point, type, q);
    }
    return QK_OK;
}

qk_status qk_dynamic_quantize(const float *x, const qk_layout *l, qk_qtype type, qk_scheme scheme, uint8_t *q,
                              float *scale, int32_t *zero_point)
{
    QK_CALL;
    /* Two passes where a scale's values are scattered, or are too many for the cache. */
    if (!l->block || l->rows != l->channels || least(l->block, l->cols) > PIECE || l->cols == 0) {
        const qk_status status = qk_choose_qparams(x, l, type, scheme, scale, zero_point);
        return status == QK_OK ? quantize_runs(x, l, type, scale, zero_point, q) : status;
    }
    const size_t blocks = ceil_div(l->cols, l->block);
    size_t work = 0;
    for (size_t row = 0; row < l->rows; row++) {
        const qk_status status = qk_dynamic_quantize_row(x + row * l->cols, l->cols, l->block, type, scheme,
                                                         q + row * l->cols, scale + row * blocks, zero_point + row * blocks);
        if (status != QK_OK)
            return status;
        if (qk_interrupted_after(&work, l->cols))
            return QK_INTERRUPTED;
    }
    return QK_OK;
}
