/* The kernel table: what a kernel of each slot computes and what it may touch.
 *
 * Every kernel is stateless, allocates nothing, starts no threads, and reads and writes only the bytes that its
 * arguments describe. It returns nothing, or a flag that says whether it met a bad value. All kernels of a slot
 * give the same bytes as the scalar one (tests/check proves it; for minmax, up to the sign of a zero), so a table may
 * mix ISAs freely.
 */
#ifndef QK_KERNELS_H
#define QK_KERNELS_H

#include "qkernels.h"
#include "trellis.h"

/* For tile bodies whose sizes are constant parameters: without it a compiler may share one body between sizes and
 * keep the accumulators in memory. */
#define QK_INLINE static inline __attribute__((always_inline))

/* Make the compiler believe that x, a vector in a register, is read and changed here. No instruction comes of it.
 * Emulated vectors (tests/simde), which are wider than registers, have their own. */
#if defined(QK_OPAQUE)
#elif defined(__aarch64__)
#define QK_OPAQUE(x) __asm__ volatile("" : "+w"(x))
#else
#define QK_OPAQUE(x) __asm__ volatile("" : "+v"(x))
#endif

/* ------------------------------------------------------------------------------------- elementwise, float32 */

/* Widen the range(s) to cover x[0..n): one range, or with _cols one for each column. Returns nonzero when x has
 * a NaN (the ranges are then unspecified). */
typedef int qk_minmax_f32_type(const float *x, size_t n, float *low, float *high);
typedef qk_minmax_f32_type qk_minmax_cols_f32_type;

/* q[i] = clamp(round_half_even(x[i] / scale) + zero_point, qmin, qmax), its low byte. scale and zero_point hold
 * one value, or with _cols n values. Returns nonzero when x has a NaN (q is then unspecified). */
typedef int qk_quantize_f32_type(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                                 qk_qtype type, uint8_t *q);
typedef qk_quantize_f32_type qk_quantize_cols_f32_type;

/* x[i] = float32(q[i] - zero_point) * scale. */
typedef void qk_dequantize_f32_type(const uint8_t *q, size_t n, const float *scale, const int32_t *zero_point,
                                    int is_signed, float *x);
typedef qk_dequantize_f32_type qk_dequantize_cols_f32_type;

/* y[i] = dequantize(quantize(x[i])). Returns nonzero when x has a NaN. */
typedef int qk_fake_quantize_f32_type(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                                      qk_qtype type, float *y);
typedef qk_fake_quantize_f32_type qk_fake_quantize_cols_f32_type;

/* The gradients of fake_quantize, straight through: with t = x[i] / scale, and r = round_half_even(t) and its clamp d
 * counted from the zero point,
 *
 *      dx[i] = r == d ? dy[i] : 0      dscale[i % 8] += dy[i] * (r == d ? d - t : d)
 *      dclip[i % 8] += r == d ? 0 : dy[i]
 *
 * in the order of i; with _cols dscale[i] and dclip[i]. The factor of dy[i], a float32, and the product, a float64, are
 * exact; each addition is rounded once. Both sums are given, or both are NULL and only dx is wanted.
 * Returns nonzero when x has a NaN (the outputs are then unspecified). */
typedef int qk_fake_grad_f32_type(const float *dy, const float *x, size_t n, const float *scale,
                                  const int32_t *zero_point, qk_qtype type, float *dx, double *dscale, double *dclip);
typedef qk_fake_grad_f32_type qk_fake_grad_cols_f32_type;

enum { QK_GRAD_LANES = 8 };

/* x[i] = gelu(x[i]), or silu, in place; csrc/activation.h defines them. A NaN stays one. */
typedef void qk_activate_f32_type(float *x, size_t n);
typedef qk_activate_f32_type qk_gelu_f32_type, qk_silu_f32_type;

/* The Walsh-Hadamard transform, in natural order, of each block of x[0..n), with a factor for each value before it or
 * after it; block = 2**m (m = 0, 1, ...) divides n:
 *
 *      y = H (factors * x),  or  y = factors * (H x) where `after`,      H[i][j] = (-1)**popcount(i & j)
 *
 * For d = 1, 2, 4, ... below block, in this order, x[i] and x[i + d], wherever i & d is 0, become x[i] + x[i + d] and
 * x[i] - x[i + d]; each product, sum and difference is rounded once. y may be x. */
typedef void qk_hadamard_f32_type(const float *x, size_t n, size_t block, const float *factors, int after, float *y);

/* -------------------------------------------------------------------------------------------------- packing */

/* n bytes to ceil(n * bits / 8) bytes. Element i of a byte takes bits [i * bits, (i + 1) * bits), or with
 * high_first the mirrored place; missing elements of the last byte are zero bits. Returns the or of
 * (uint8_t)(q[i] + bias), from which the caller sees whether each value fitted. */
typedef uint8_t qk_pack_type(const uint8_t *q, size_t n, uint8_t bias, int high_first, uint8_t *p);
typedef qk_pack_type qk_pack_u1_type, qk_pack_u2_type, qk_pack_u4_type;

/* The inverse; with is_signed the top bit of each field is copied upward. */
typedef void qk_unpack_type(const uint8_t *p, size_t n, int is_signed, int high_first, uint8_t *q);
typedef qk_unpack_type qk_unpack_u1_type, qk_unpack_u2_type, qk_unpack_u4_type;

/* ------------------------------------------------------------------------------------------------ bandwidth */

/* The sum of n words modulo 2**32, n a multiple of QK_SUM_BLOCK. It stands for the fastest way to read memory: the
 * figure that benchmarks of products with few rows compare with. */
typedef uint32_t qk_sum_u32_type(const uint32_t *x, size_t n);

enum { QK_SUM_BLOCK = 256 };

/* --------------------------------------------------------------------------------------------- integer GEMM */

/* From a tile of int32 sums to the output. Arrays indexed by column are padded to multiples of n_unit. */
typedef struct qk_store_args {
    /* The exact accumulator, modulo 2**32:
     *   acc[m][n] = tile[m][n] + column_term[n] - row_sums[m] * b_zero_point[n] - a_zero_point[m] * column_sums[n]
     * with row_sums / a_zero_point NULL where that product is zero or already part of column_term. */
    const int32_t *column_term;
    const int32_t *b_zero_point;
    const int32_t *column_sums;
    /* f32: y = clamp(float32(acc) * mult + bias);  q8: q = round(clamp(float32(acc) * mult + bias)) + zero_point,
     * mult being mult[n], times row_scales[m] where given. */
    const float *mult;
    const float *bias; /* -0.0 for none: the one number whose addition changes nothing */
    float low, high;   /* of y, or of q - zero_point */
    /* q8_fixed: left and right shifts and a Q31 multiplier a column; see csrc/requant.h. */
    const int32_t *fixed_mult, *fixed_left, *fixed_right;
    int32_t fixed_low, fixed_high; /* of q - zero_point */
    int32_t zero_point;
} qk_store_args;

/* The m rows of a tile. */
typedef struct qk_store_rows {
    const int32_t *row_sums;     /* or NULL */
    const int32_t *a_zero_point; /* or NULL */
    const float *row_scales;     /* or NULL */
} qk_store_rows;

/* One register tile to multiply: m rows of a panel of A by the n columns of a panel of B, over part of k. */
typedef struct qk_gemm_tile {
    const uint8_t *a;             /* the panels, from step 0 */
    const uint8_t *b;
    size_t a_stride;              /* see pack_a */
    uint32_t m, n;                /* 1 <= m <= mr; n a multiple of n_unit, at most nr */
    uint32_t first_step, k_steps; /* the steps to multiply */
    int accumulate;               /* start from the sums below instead of zero */
    int32_t *sums;                /* [m][nr], aligned to 64 bytes */
    const uint8_t *prefetch;      /* memory that will be wanted soon; a kernel may prefetch it while it multiplies, */
    size_t prefetch_stride;       /* so many bytes further with every step */
} qk_gemm_tile;

/* A register tile and the packers that feed it: the kernel dictates the layout.
 *
 * A panel of B is n columns, n being nr, or for the last panel what is left, rounded up to n_unit: [k_steps][n][kr]
 * bytes. A panel of A is m <= mr rows, exactly, so that a short last panel costs no wasted multiplies: elements of
 * a_bytes each, either in turns like B, [k_steps][m][kr], or where a_by_rows row after row, a_stride bytes apart.
 * k_steps = ceil(k / kr); what lies past k or past the matrix's last column is zero. A kernel may keep parts of A's
 * groups complemented (neon does).
 *
 *      panel of B, kr = 4, n = 16:     k 0..3 of column 0 | k 0..3 of column 1 | ... | k 0..3 of column 15
 *                                      k 4..7 of column 0 | ...
 */
typedef const struct qk_gemm_s8 {
    uint8_t mr, nr, kr, n_unit;
    uint8_t a_bytes;            /* size of a packed element of A: 1, or 2 where the ISA multiplies int16 */
    uint8_t a_by_rows;
    uint8_t a_signed, b_signed; /* the signedness that run() multiplies; the packers flip bytes to it */

    /* Pack `count` rows of A (columns of B): element (i, k) is src[i * stride + k * k_stride] ^ flip. Writes the
     * sums over k of the flipped values to sums[0..count), for B zeros up to n, unless sums is NULL. a_stride is at
     * least k_steps * kr * a_bytes, and a multiple of 4. */
    void (*pack_a)(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, size_t a_stride, int32_t *sums);
    void (*pack_b)(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, int32_t *sums);

    /* sums[i * nr + j] = or += sum over the steps of a[i][k] * b[k][j] modulo 2**32, for i < m and j < n. The panels
     * start at a multiple of 64 bytes (B), or kr * a_bytes (A). */
    void (*run)(const qk_gemm_tile *tile);

    /* run(), and store the sums straight from the registers as the store slot of that output does: m rows and n whole
     * columns, with rows->row_sums and rows->a_zero_point NULL. `sums` is only read, and only to accumulate. An
     * entry may be NULL: the driver then calls run() and the store slot. Indexed by qk_output. */
    void (*run_store[QK_OUT_COUNT])(const qk_gemm_tile *tile, const qk_store_args *args, size_t column,
                                    const qk_store_rows *rows, void *out, size_t out_row_bytes);

    /* The instructions of run()'s inner loop on registers alone, `rounds` times: the peak that benchmarks compare with.
     * Returns the number of multiply-adds done. */
    uint64_t (*peak)(uint64_t rounds);
} qk_gemm_s8_type;

static inline qk_b_layout qk_b_layout_of(qk_gemm_s8_type *gemm)
{
    return (qk_b_layout){gemm->nr, gemm->kr, gemm->n_unit, gemm->b_signed};
}

/* Store m rows of n columns, tile rows being ld apart; n is a multiple of QK_STORE_COLUMNS; the first column is
 * number `column` of the whole product. */
typedef void qk_store_type(const int32_t *tile, size_t ld, size_t m, size_t n, const qk_store_args *args,
                           size_t column, const qk_store_rows *rows, void *out, size_t out_row_bytes);
typedef qk_store_type qk_store_s32_type, qk_store_f32_type, qk_store_q8_type, qk_store_q8_fixed_type;

#if defined(__aarch64__)
#define QK_STORE_COLUMNS 4
#else
#define QK_STORE_COLUMNS 16
#endif

/* Bounds over all ISAs, for tiles on the stack. */
enum { QK_MAX_MR = 16, QK_MAX_NR = 64 };

/* --------------------------------------------------------------------------------------------- binary GEMM */

/* A tile of a product of signs, bits in words: out[i][j] = start - 2 * (the ones of row i of A xor column j of B), for
 * i < m and j < nr. */
typedef struct qk_b1_tile {
    const uint32_t *a; /* m rows of words, a_stride words apart */
    size_t a_stride;
    const uint32_t *b; /* [words][nr] */
    size_t words;      /* a multiple of 4 */
    uint32_t m;        /* 1 <= m <= mr */
    int accumulate;    /* start from the sums in out instead of `start` */
    int32_t start;
    int32_t *out;
    size_t out_stride; /* in elements */
} qk_b1_tile;

/* The tile's size, and what its words are: the bits themselves, or where `running` the xor of all words up to this
 * one, which saves a kernel that counts carries an operation. */
typedef const struct qk_gemm_b1 {
    uint8_t mr, nr, running;
    void (*run)(const qk_b1_tile *tile);
} qk_gemm_b1_type;

/* -------------------------------------------------------------------------------- weights in blocks along k */

/* A weight W [N][K] lies in panels of nr rows of W (columns of the product), a panel as records, one for each block of
 * k values that share a scale:
 *
 *      record:  codes [block * bits / 8][nr] | scales [nr] | zero points [nr], where there are any
 *
 * block is a multiple of 32, and K is filled up to whole blocks with codes that meet zeros of A. Evenly spaced codes
 * and those of a table lie in lines [steps / per_byte][nr][kr], steps = block / kr: a byte holds per_byte codes, of so
 * many steps that follow each other, the first in its lowest bits:
 *
 *      4-bit codes, kr = 4:    byte i of column n in line j:   code[n][8 j + i] | code[n][8 j + 4 + i] << 4
 *
 * Signs and trellises lie in planes: 32 values of k (a chunk) take `bits` planes [nr] of 32 bits, so that a vector holds
 * the same bits of many columns.
 *
 *      signs:    bit q of byte i of the plane is that of k = 4 q + i
 *      trellis:  32 values are a word, a ring of 4 * bits bytes; byte i of plane j is byte i * bits + j of it. The state
 *                of k = 4 q + i is the QK_STATE_BITS bits of the ring from bit (8 i + q) * bits on
 *      fine:     a block is a ring of 32-bit numbers, those of a chunk one a plane. The state of value k of the block is
 *                the `window` bits of the ring from bit k * bits on
 *
 * The decoder of a format turns a record into a plain one, whose codes are bytes in steps [nr][kr], its scales float32,
 * its zero points int32. */

/* Levels, as the bytes to multiply, aligned to 64:
 *
 *      a table                  16
 *      row_tables               [nr][16], at qk_row_table_at
 *      a trellis                [6][64]: the m-th time with states whose m highest bits are at their low end:
 *                               levels[m][x] = levels[0][x >> m | x << (6 - m) & 63] */
enum { QK_TABLE = 16, QK_STATE_BITS = 6, QK_STATES = 1 << QK_STATE_BITS };

/* The level of a state of a fine trellis: the sum of four numbers of 6 bits, nearly normal; -126 to 126. */
#define QK_FINE_FACTOR 0xcbac1fedu
#define QK_FINE_MASK 0x3f3f3f3fu
enum { QK_FINE_MIDDLE = 126 };

static inline int32_t qk_fine_level(uint32_t state)
{
    const uint32_t bytes = state * QK_FINE_FACTOR & QK_FINE_MASK;
    return (int32_t)((bytes & 0xff) + (bytes >> 8 & 0xff) + (bytes >> 16 & 0xff) + (bytes >> 24)) - QK_FINE_MIDDLE;
}

/* A tile of the product with such a weight. For each block b in order, and each row i < m and column j < nr:
 *
 *      acc  = sum over the block of a[i][k] * code[j][k], plus terms[i][b] (times zero[j][b], where there are any)
 *      sums[i][j] = fma(float32(acc) [* a_scales[i][b]], scale[j][b], sums[i][j])          each rounded once
 *
 * acc is exact: |a| <= 127 and block <= 256, so that |acc| < 2**24. */
typedef struct qk_grouped_tile {
    const int8_t *a; /* rows a_stride bytes apart, a multiple of 64 */
    size_t a_stride;
    const int32_t *terms;  /* -zero * sum of a over the block; without the zero where the weight has zero points */
    const float *a_scales; /* or NULL */
    size_t row_blocks;     /* distance of rows in these two */
    uint32_t m, blocks;
    const uint8_t *b; /* records */
    const qk_records *records;
    const uint8_t *levels; /* of packed records that have them */
    uint32_t panels;    /* of the weight, block by block in turns: memory is faster in several streams */
    size_t panel_bytes; /* their distance */
    float *sums;        /* [panels][m][nr], aligned to 64 bytes */
    int accumulate;
} qk_grouped_tile;

/* The kernel of weights in blocks: the tile, and the decoders that feed it. */
typedef const struct qk_gemm_grouped {
    uint8_t mr[QK_CODES_COUNT], few[QK_CODES_COUNT]; /* the most rows of run and of run_packed */
    uint8_t nr, kr;
    uint8_t bytes_signed; /* bytes are multiplied as int8: 8-bit codes and levels + 128 are stored ^ 0x80, and their
                             zero points are 128 less */
    uint8_t lanes; /* of 16 bytes, in a vector of codes */

    /* Plain records that such codes were decoded to, m <= mr of the codes. */
    void (*run[QK_CODES_COUNT])(const qk_grouped_tile *tile);
    /* Packed records, decoded in registers, m <= few of the codes: reads each weight once. NULL where few is 0; not for
     * tables by row. */
    void (*run_packed[QK_CODES_COUNT])(const qk_grouped_tile *tile);
    /* `blocks` packed records to plain ones, qk_plain_bytes apart; both aligned to 64 bytes. */
    void (*decode[QK_CODES_COUNT])(const uint8_t *packed, const qk_records *records, const uint8_t *levels,
                                   size_t blocks, uint8_t *plain);
} qk_gemm_grouped_type;

static inline qk_weight_layout qk_layout_of(qk_gemm_grouped_type *gemm)
{
    return (qk_weight_layout){gemm->nr, gemm->kr, gemm->bytes_signed, gemm->lanes};
}

/* Where the table of column n is among those of a panel: a vector of codes is looked up in the tables of the first column
 * of each lane, then in those of the second one, ... */
static inline size_t qk_row_table_at(qk_weight_layout layout, size_t n)
{
    const size_t of_lane = QK_TABLE / layout.kr, of_vector = of_lane * layout.lanes;
    const size_t vector = n / of_vector, lane = n % of_vector / of_lane;
    return ((vector * of_lane + n % of_lane) * layout.lanes + lane) * QK_TABLE;
}

/* The bytes of a plain record. */
static inline size_t qk_plain_bytes(const qk_records *records, size_t nr)
{
    return (records->block + 4 + (records->has_zero_points ? 4 : 0)) * nr;
}

/* x[0..n) as three int8 numbers each, in blocks that share a power of two: x = scale * (64516 high + 254 middle + low),
 * but for less than the block's max|x| / 2**22, or 2**-127 where that is more; digits are in [-127, 127], digits[d]
 * + k that of x[k]. scales[d * row_blocks + b] is what digit d of block b is worth. Returns nonzero when x has a
 * NaN or an infinity: the digits are then unspecified. */
typedef int qk_split_f32_type(const float *x, size_t n, size_t block, int8_t *const digits[3], float *scales,
                              size_t row_blocks);

/* out[j] = clamp((sums[j] + sums[ld + j] + ...) * scale + bias[j]), `rows` of sums, each operation rounded once. Returns
 * nonzero where that is a NaN or an infinity before the clamp. */
typedef int qk_finish_f32_type(const float *sums, size_t ld, size_t rows, size_t n, float scale, const float *bias,
                               float low, float high, float *out);

/* ------------------------------------------------------------------------------------------ trellis encoding */

/* A cheap path through a trellis (csrc/trellis.h), one state for each of x[0..steps), by the Viterbi algorithm. The
 * cost of the paths to state q << bits | j is that of the best one to overlap (q << bits | j) mod overlaps, plus d * d
 * with d = x[p] - level, each operation rounded once; then its lowest `bits` bits are replaced by j, so that the least
 * of the costs before overlap q tells which state it belongs to, and of equal ones the lowest is taken. That moves a
 * cost by less than 2**bits units in the last place.
 *
 * The first state comes after the overlap given, and the last one is before the same; or both are free. |x| is at most
 * QK_TRELLIS_LIMIT. scratch is aligned to 64 bytes. */
typedef void qk_viterbi_f32_type(const qk_trellis *trellis, const float *x, size_t steps, ptrdiff_t overlap,
                                 void *scratch, uint16_t *path);

/* ---------------------------------------------------------------------------------------------------- table */

#define QK_SLOTS(X)                                                                                          \
    X(minmax_f32)                                                                                            \
    X(minmax_cols_f32)                                                                                       \
    X(quantize_f32)                                                                                          \
    X(quantize_cols_f32)                                                                                     \
    X(dequantize_f32)                                                                                        \
    X(dequantize_cols_f32)                                                                                   \
    X(fake_quantize_f32)                                                                                     \
    X(fake_quantize_cols_f32)                                                                                \
    X(fake_grad_f32)                                                                                         \
    X(fake_grad_cols_f32)                                                                                    \
    X(gelu_f32)                                                                                              \
    X(silu_f32)                                                                                              \
    X(hadamard_f32)                                                                                          \
    X(pack_u1)                                                                                               \
    X(pack_u2)                                                                                               \
    X(pack_u4)                                                                                               \
    X(unpack_u1)                                                                                             \
    X(unpack_u2)                                                                                             \
    X(unpack_u4)                                                                                             \
    X(sum_u32)                                                                                               \
    X(gemm_s8)                                                                                               \
    X(store_s32)                                                                                             \
    X(store_f32)                                                                                             \
    X(store_q8)                                                                                              \
    X(store_q8_fixed)                                                                                        \
    X(gemm_b1)                                                                                               \
    X(gemm_grouped)                                                                                          \
    X(split_f32)                                                                                             \
    X(finish_f32)                                                                                            \
    X(viterbi_f32)

enum qk_slot {
#define X(slot) QK_SLOT_##slot,
    QK_SLOTS(X)
#undef X
    QK_SLOT_COUNT
};

enum qk_isa {
#define ISA(name, built, features, b, weight) QK_ISA_##name,
#include "isa.def"
#undef ISA
    QK_ISA_COUNT
};

typedef struct qk_kernel_table {
#define X(slot) qk_##slot##_type *slot;
    QK_SLOTS(X)
#undef X
    int isa_of[QK_SLOT_COUNT];
} qk_kernel_table;

/* The table in force. */
extern qk_kernel_table qk_kernels;

/* A row of kernels.def declares a kernel: a function, or a constant descriptor. */
#define K(slot, isa) extern qk_##slot##_type qk_##slot##_##isa;
#include "kernels.def"
#undef K

#endif
