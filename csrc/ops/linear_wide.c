#include "ops/linear_wide.h"

/* Add block b of an int8 row: the integer sums are those of the grouped tile, by a record whose scales are 1. */
static void add_block(const qk_packed_weight *w, const qk_int8_rows *rows, size_t row, size_t b, const uint8_t *plain,
                      const float *scales, double *sums)
{
    const qk_gemm_grouped_type *gemm = qk_kernels.gemm_grouped;
    _Alignas(64) float acc[QK_WIDEST_PANEL];
    const qk_grouped_tile tile = {
        .a = rows->a + row * rows->a_stride + b * w->records.block,
        .a_stride = rows->a_stride,
        .terms = rows->terms + row * rows->blocks + b,
        .row_blocks = rows->blocks,
        .m = 1,
        .blocks = 1,
        .records = &w->records,
        .panels = 1,
        .b = plain,
        .sums = acc,
    };
    gemm->run[w->codes](&tile);
    const double block_scale = rows->scales ? rows->scales[row * rows->blocks + b] : 1.0f;
    for (size_t j = 0; j < gemm->nr; j++)
        sums[j] += acc[j] * block_scale * scales[j];
}

void qk_wide_sums(const qk_packed_weight *w, const uint8_t *packed, const qk_int8_rows *rows, size_t row, size_t panel,
                  uint8_t *plain, double *sums)
{
    const qk_gemm_grouped_type *gemm = qk_kernels.gemm_grouped;
    const size_t nr = gemm->nr;
    const uint8_t *record = packed + qk_weight_panel(w, panel), *levels = packed + qk_weight_levels(w, panel);
    float *plain_scales = (float *)(plain + w->records.block * nr), scales[QK_WIDEST_PANEL];
    double by_digit[3][QK_WIDEST_PANEL] = {{0.0}};
    for (size_t b = 0; b < w->blocks; b++, record += w->records.bytes) {
        gemm->decode[w->codes](record, &w->records, levels, 1, plain);
        for (size_t j = 0; j < nr; j++) {
            scales[j] = plain_scales[j];
            plain_scales[j] = 1.0f;
        }
        for (size_t d = 0; d < rows->digits; d++)
            add_block(w, rows, row * rows->digits + d, b, plain, scales, by_digit[d]);
    }
    for (size_t j = 0; j < nr; j++) {
        sums[j] = by_digit[0][j];
        for (size_t d = 1; d < rows->digits; d++)
            sums[j] += by_digit[d][j];
    }
}
