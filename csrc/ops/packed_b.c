/* Pack a right-hand side [K][N] for the selected ISA's GEMM kernel, and unpack it again. */
#include <string.h>

#include "kernels.h"
#include "packed_b.h"
#include "threads.h"

enum { ALIGNMENT = 64, SMALL = 1 << 18 /* bytes that are not worth another thread */ };

/* Round up to the alignment and add to *total; 0 on overflow. */
static int add_part(uint64_t *total, uint64_t count, uint64_t size, uint64_t *offset)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || __builtin_add_overflow(bytes, ALIGNMENT - 1, &bytes))
        return 0;
    bytes -= bytes % ALIGNMENT;
    *offset = *total;
    return !__builtin_add_overflow(*total, bytes, total) && *total <= PTRDIFF_MAX;
}

/* The header of a packed [k][n] matrix, but for its values; 0 when a size overflows. */
static int lay_out(uint64_t k, uint64_t n, qk_packed_b *b, uint64_t *total)
{
    qk_gemm_s8_type *gemm = qk_kernels.gemm_s8;
    uint64_t k_steps = k / gemm->kr + (k % gemm->kr != 0), whole_panels = n / gemm->nr, ignored;
    uint64_t last = (n % gemm->nr + gemm->n_unit - 1) / gemm->n_unit * gemm->n_unit; /* columns of a narrower panel */
    *b = (qk_packed_b){
        .k = k,
        .n = n,
        .padded_n = whole_panels * gemm->nr + last,
        .k_steps = (uint32_t)k_steps,
        .isa = (uint8_t)qk_kernels.isa_of[QK_SLOT_gemm_s8],
        .nr = gemm->nr,
        .kr = gemm->kr,
    };
    if (k_steps > UINT32_MAX || k > PTRDIFF_MAX || n > PTRDIFF_MAX)
        return 0;
    *total = 0;
    return add_part(&b->panel_bytes, k_steps, (uint64_t)gemm->nr * gemm->kr, &ignored) &&
           add_part(total, 1, sizeof *b, &ignored) && add_part(total, b->padded_n, 4, &b->zero_point) &&
           add_part(total, b->padded_n, 4, &b->column_sums) &&
           add_part(total, whole_panels, b->panel_bytes, &b->panels) && add_part(total, k_steps, last * gemm->kr, &ignored);
}

qk_status qk_packed_b_size(size_t k, size_t n, size_t *bytes)
{
    qk_packed_b header;
    uint64_t total;
    if (!lay_out(k, n, &header, &total))
        return QK_TOO_LARGE;
    *bytes = (size_t)total;
    return QK_OK;
}

typedef struct packing {
    const qk_matrix *b;
    const qk_packed_b *header;
    const int32_t *moved_zero_point;
    int32_t *column_sums;
} packing;

/* A task: one panel and its column sums. */
static void pack_panel_of_b(void *context, size_t panel)
{
    const packing *job = context;
    const qk_packed_b *header = job->header;
    const size_t col = panel * header->nr;
    const size_t count = header->n - col < header->nr ? header->n - col : header->nr;
    qk_kernels.gemm_s8->pack_b(job->b->data + (ptrdiff_t)col * job->b->col_stride, job->b->col_stride,
                               job->b->row_stride, count, header->k, header->flip,
                               (uint8_t *)qk_packed_panel(header, panel), job->column_sums + col);
    for (size_t j = col; j < col + count; j++)
        job->column_sums[j] =
            (int32_t)((uint32_t)job->column_sums[j] - (uint32_t)job->moved_zero_point[j] * (uint32_t)header->k);
}

qk_status qk_pack_b(const qk_matrix *b, const int32_t *zero_point, size_t zero_point_count, void *packed)
{
    qk_gemm_s8_type *gemm = qk_kernels.gemm_s8;
    qk_packed_b *header = packed;
    uint64_t total;
    if (!lay_out(b->rows, b->cols, header, &total))
        return QK_TOO_LARGE;
    const int32_t qmin = b->is_signed ? -128 : 0, qmax = b->is_signed ? 127 : 255;
    for (size_t j = 0; j < zero_point_count; j++)
        if (zero_point[j] < qmin || zero_point[j] > qmax)
            return QK_BAD_ZERO_POINT;

    header->is_signed = (uint8_t)b->is_signed;
    header->flip = b->is_signed == gemm->b_signed ? 0 : 0x80;
    int32_t shift = qk_shift_of_flip(header->flip, b->is_signed);
    int32_t *moved_zero_point = (int32_t *)((char *)packed + header->zero_point);
    int32_t *column_sums = (int32_t *)((char *)packed + header->column_sums);
    memset(moved_zero_point, 0, header->padded_n * sizeof *moved_zero_point);
    for (size_t j = 0; j < header->n; j++) {
        int32_t z = zero_point[zero_point_count == 1 ? 0 : j];
        int32_t reach = qmax - z > z - qmin ? qmax - z : z - qmin;
        header->magnitude = reach > header->magnitude ? reach : header->magnitude;
        moved_zero_point[j] = z + shift;
        header->any_zero_point |= moved_zero_point[j] != 0;
    }
    packing job = {b, header, moved_zero_point, column_sums};
    const size_t panels = (header->n + gemm->nr - 1) / gemm->nr;
    if (header->k * header->n >= SMALL)
        qk_parallel_for(pack_panel_of_b, &job, panels);
    else
        for (size_t panel = 0; panel < panels; panel++)
            pack_panel_of_b(&job, panel);
    return QK_OK;
}

void qk_unpack_b(const void *packed, uint8_t *b, int32_t *zero_point)
{
    const qk_packed_b *header = packed;
    int32_t shift = qk_shift_of_flip(header->flip, header->is_signed);
    for (size_t j = 0; j < header->n; j++)
        zero_point[j] = qk_packed_zero_point(header)[j] - shift;
    for (size_t k = 0; k < header->k; k++) {
        for (size_t j = 0; j < header->n; j++) {
            const uint8_t *panel = qk_packed_panel(header, j / header->nr);
            const size_t width = qk_packed_width(header, j - j % header->nr);
            b[k * header->n + j] =
                panel[(k / header->kr * width + j % header->nr) * header->kr + k % header->kr] ^ header->flip;
        }
    }
}

int qk_packed_b_isa(const void *packed)
{
    return ((const qk_packed_b *)packed)->isa;
}
