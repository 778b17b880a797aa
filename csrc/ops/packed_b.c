/* Pack a right-hand side [K][N] in the layout of some GEMM kernel, and unpack it again. */
#include <string.h>

#include "calls.h"
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
static int lay_out(uint64_t k, uint64_t n, qk_b_layout layout, qk_packed_b *b, uint64_t *total)
{
    uint64_t k_steps = k / layout.kr + (k % layout.kr != 0), whole_panels = n / layout.nr, ignored;
    uint64_t last = (n % layout.nr + layout.n_unit - 1) / layout.n_unit * layout.n_unit; /* columns of a narrower panel */
    *b = (qk_packed_b){
        .k = k,
        .n = n,
        .padded_n = whole_panels * layout.nr + last,
        .k_steps = (uint32_t)k_steps,
        .nr = layout.nr,
        .kr = layout.kr,
        .n_unit = layout.n_unit,
    };
    if (k_steps > UINT32_MAX || k > PTRDIFF_MAX || n > PTRDIFF_MAX)
        return 0;
    *total = 0;
    return add_part(&b->panel_bytes, k_steps, (uint64_t)layout.nr * layout.kr, &ignored) &&
           add_part(total, 1, sizeof *b, &ignored) && add_part(total, b->padded_n, 4, &b->zero_point) &&
           add_part(total, b->padded_n, 4, &b->column_sums) &&
           add_part(total, whole_panels, b->panel_bytes, &b->panels) &&
           add_part(total, k_steps, last * layout.kr, &ignored);
}

/* What the header says of the zero points, given one of them; 0 if it is out of range. */
static int add_zero_point(qk_packed_b *header, int32_t z)
{
    const int32_t qmin = header->is_signed ? -128 : 0, qmax = header->is_signed ? 127 : 255;
    const int32_t reach = qmax - z > z - qmin ? qmax - z : z - qmin;
    header->magnitude = reach > header->magnitude ? reach : header->magnitude;
    header->any_zero_point |= z + qk_shift_of_flip(header->flip, header->is_signed) != 0;
    return qmin <= z && z <= qmax;
}

qk_b_layout qk_own_b_layout(void) { return qk_b_layout_of(qk_kernels.gemm_s8); }

/* Whether there can be panels of it. */
static int is_layout(qk_b_layout layout)
{
    return layout.nr && layout.kr && layout.n_unit && layout.nr % layout.n_unit == 0 && layout.bytes_signed <= 1;
}

qk_status qk_packed_b_size(size_t k, size_t n, qk_b_layout layout, size_t *bytes)
{
    qk_packed_b header;
    uint64_t total;
    if (!is_layout(layout))
        return QK_FOREIGN_LAYOUT;
    if (!lay_out(k, n, layout, &header, &total))
        return QK_TOO_LARGE;
    *bytes = (size_t)total;
    return QK_OK;
}

qk_status qk_describe_b(const qk_matrix *b, const int32_t *zero_point, size_t zero_point_count, qk_b_layout layout,
                        qk_packed_b *header, size_t *bytes)
{
    uint64_t total;
    if (!lay_out(b->rows, b->cols, layout, header, &total))
        return QK_TOO_LARGE;
    *bytes = (size_t)total;
    header->is_signed = (uint8_t)b->is_signed;
    header->flip = b->is_signed == layout.bytes_signed ? 0 : 0x80;
    for (size_t j = 0; j < zero_point_count; j++)
        if (!add_zero_point(header, zero_point[j]))
            return QK_BAD_B_ZERO_POINT;
    if (b->cols == 0) /* a zero point of no column leaves no trace */
        header->magnitude = header->any_zero_point = 0;
    return QK_OK;
}

void qk_begin_packed_b(const qk_packed_b *header, const int32_t *zero_point, size_t zero_point_count, uint8_t *packed)
{
    const int32_t shift = qk_shift_of_flip(header->flip, header->is_signed);
    int32_t *moved_zero_point = (int32_t *)(packed + header->zero_point);
    memcpy(packed, header, sizeof *header);
    for (size_t j = 0; j < header->n; j++)
        moved_zero_point[j] = zero_point[zero_point_count == 1 ? 0 : j] + shift;
    memset(moved_zero_point + header->n, 0, (header->padded_n - header->n) * sizeof *moved_zero_point);
}

/* The byte of (k, j) in a panel of `width` columns. */
static size_t place_in_panel(const qk_packed_b *b, size_t width, size_t k, size_t j)
{
    return (k / b->kr * width + j) * b->kr + k % b->kr;
}

/* What pack_b of a kernel does, in any layout. */
static void pack_columns(const qk_packed_b *header, const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride,
                         size_t count, size_t width, uint8_t *panel, int32_t *sums)
{
    const int is_signed = header->is_signed ^ (header->flip != 0);
    memset(panel, 0, width * header->k_steps * header->kr);
    memset(sums, 0, width * sizeof *sums);
    for (size_t k = 0; k < header->k; k++)
        for (size_t j = 0; j < count; j++) {
            const uint8_t byte = src[(ptrdiff_t)j * stride + (ptrdiff_t)k * k_stride] ^ header->flip;
            panel[place_in_panel(header, width, k, j)] = byte;
            sums[j] = (int32_t)((uint32_t)sums[j] + (uint32_t)(is_signed ? (int8_t)byte : byte));
        }
}

int qk_is_own_b_layout(const qk_packed_b *b)
{
    const qk_b_layout own = qk_own_b_layout();
    const uint8_t flip = b->is_signed == own.bytes_signed ? 0 : 0x80;
    return b->nr == own.nr && b->kr == own.kr && b->n_unit == own.n_unit && b->flip == flip;
}

void qk_pack_panel(const qk_matrix *b, const qk_packed_b *header, uint8_t *packed, size_t col, uint8_t *panel)
{
    const size_t count = header->n - col < header->nr ? header->n - col : header->nr;
    const int32_t *moved_zero_point = qk_packed_zero_point(header, packed);
    const uint8_t *src = b->data + (ptrdiff_t)col * b->col_stride;
    int32_t *column_sums = (int32_t *)(packed + header->column_sums);
    if (qk_is_own_b_layout(header))
        qk_kernels.gemm_s8->pack_b(src, b->col_stride, b->row_stride, count, header->k, header->flip, panel,
                                   column_sums + col);
    else
        pack_columns(header, src, b->col_stride, b->row_stride, count, qk_packed_width(header, col), panel,
                     column_sums + col);
    for (size_t j = col; j < col + count; j++)
        column_sums[j] = (int32_t)((uint32_t)column_sums[j] - (uint32_t)moved_zero_point[j] * (uint32_t)header->k);
}

typedef struct packing {
    const qk_matrix *b;
    const qk_packed_b *header;
    uint8_t *packed;
} packing;

/* A task: one panel. */
static void pack_one(void *context, size_t panel)
{
    const packing *job = context;
    qk_pack_panel(job->b, job->header, job->packed, panel * job->header->nr,
                  job->packed + qk_packed_panel(job->header, panel));
}

qk_status qk_pack_panels(const qk_matrix *b, const qk_packed_b *header, uint8_t *packed)
{
    packing job = {b, header, packed};
    const size_t panels = (header->n + header->nr - 1) / header->nr;
    if (header->k * header->n >= SMALL)
        return qk_parallel_for(pack_one, &job, panels);
    for (size_t panel = 0; panel < panels; panel++)
        pack_one(&job, panel);
    return QK_OK;
}

qk_status qk_pack_b(const qk_matrix *b, const int32_t *zero_point, size_t zero_point_count, qk_b_layout layout,
                    qk_packed_b *header, void *packed)
{
    QK_CALL;
    size_t bytes;
    qk_status status = qk_describe_b(b, zero_point, zero_point_count, layout, header, &bytes);
    if (status != QK_OK)
        return status;
    qk_begin_packed_b(header, zero_point, zero_point_count, packed);
    return qk_pack_panels(b, header, packed);
}

qk_status qk_unpack_b(const qk_packed_b *header, const void *packed, uint8_t *b, int32_t *zero_point)
{
    QK_CALL;
    const int32_t *moved_zero_point = qk_packed_zero_point(header, packed);
    size_t work = 0;
    const uint32_t shift = (uint32_t)qk_shift_of_flip(header->flip, header->is_signed);
    for (size_t j = 0; j < header->n; j++)
        zero_point[j] = (int32_t)((uint32_t)moved_zero_point[j] - shift); /* of any 32 bits */
    for (size_t k = 0; header->n > 0 && k < header->k; k++) {
        for (size_t j = 0; j < header->n; j++) {
            const uint8_t *panel = (const uint8_t *)packed + qk_packed_panel(header, j / header->nr);
            const size_t width = qk_packed_width(header, j - j % header->nr);
            b[k * header->n + j] = panel[place_in_panel(header, width, k, j % header->nr)] ^ header->flip;
        }
        if (qk_interrupted_after(&work, header->n))
            return QK_INTERRUPTED;
    }
    return QK_OK;
}

qk_status qk_check_packed_b(size_t k, size_t n, int is_signed, qk_b_layout layout, const void *packed, size_t bytes,
                            qk_packed_b *header)
{
    uint64_t total;
    if (!is_layout(layout) || bytes < sizeof *header || !lay_out(k, n, layout, header, &total) || bytes != total)
        return QK_FOREIGN_LAYOUT;
    header->is_signed = (uint8_t)is_signed;
    header->flip = is_signed == layout.bytes_signed ? 0 : 0x80;
    const int32_t shift = qk_shift_of_flip(header->flip, is_signed);
    const volatile int32_t *moved_zero_point = qk_packed_zero_point(header, packed); /* each is read once */
    for (size_t j = 0; j < n; j++) {
        const int32_t moved = moved_zero_point[j];
        if (moved < -256 || moved > 256 || !add_zero_point(header, moved - shift))
            return QK_FOREIGN_LAYOUT;
    }
    return memcmp(header, packed, sizeof *header) == 0 ? QK_OK : QK_FOREIGN_LAYOUT;
}
