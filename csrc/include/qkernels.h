/* qkernels: the public C interface. Everything Python calls is declared here, and nothing else.
 *
 * Conventions
 *  - real = scale * (q - zero_point);  q = saturate(round_half_even(x / scale) + zero_point), in float32.
 *  - 8-bit and narrower values travel as bytes (uint8_t *) plus a flag `is_signed`.
 *  - Functions return a qk_status. Shapes, dtypes and overlap are the caller's to check (the Python layer does);
 *    values inside arrays are checked here: scales, zero points and biases before any work, NaN among the data in
 *    the pass that reads them (outputs are then unspecified).
 *  - No function keeps state, except qk_select_isa, qk_set_num_threads and qk_ask_for_interruption. All may run on
 *    several threads at once.
 *  - Results are those of the default floating-point mode, whatever the mode of the calling thread.
 */
#ifndef QKERNELS_H
#define QKERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef enum qk_status {
    QK_OK = 0,
    QK_NO_MEMORY,
    QK_TOO_LARGE,       /* a size overflows, or K > 2**23 in a scaled product whose sums exceed 32 bits */
    QK_NAN,             /* NaN among the values to quantize */
    QK_NOT_FINITE,      /* NaN or infinity where neither is allowed */
    QK_OUT_OF_RANGE,    /* a value does not fit the stated number of bits */
    QK_BAD_SCALE,       /* not finite and greater than 0: affine scale, or GEMM scales */
    QK_BAD_ROW_SCALES,  /* likewise */
    QK_BAD_OUT_SCALE,   /* likewise */
    QK_BAD_BIAS,        /* not finite */
    QK_BAD_ZERO_POINT,  /* outside the type's range */
    QK_BAD_B_ZERO_POINT, /* likewise */
    QK_FOREIGN_LAYOUT,  /* a packed matrix of another ISA's layout, or of none */
    QK_SCALE_OVERFLOW,  /* a product or quotient of scales, or bias / out_scale, is not finite */
    QK_FIXED_RANGE,     /* fixed-point requantization: the accumulator may not fit 32 bits */
    QK_FIXED_SCALE,     /* fixed-point requantization: scales / out_scale >= 2**30 */
    QK_TOO_FAR,         /* trellis encoding: a value beyond 2**40 levels */
    QK_INTERRUPTED      /* the program asked for an end; outputs are unspecified */
} qk_status;

/* ------------------------------------------------------------------------------------------------ dispatch */

/* ISA rows in preference order, weakest first (csrc/isa.def). */
int qk_isa_count(void);
const char *qk_isa_name(int isa);
int qk_isa_built(int isa);
int qk_isa_supported(int isa);
int qk_isa_emulated(int isa); /* in a test build (csrc/build.py) */

/* Fill the kernel table from every built and supported ISA up to and including `isa`. Not thread-safe
 * against running operations: called at import and by tests. */
void qk_select_isa(int isa);
int qk_selected_isa(void);

/* Kernel slots, and the ISA whose kernel is in each (csrc/kernels.def). */
int qk_slot_count(void);
const char *qk_slot_name(int slot);
int qk_slot_isa(int slot);

/* CPU features that the probe looks for: name of the i-th, NULL past the end; whether this CPU has it. */
const char *qk_feature_name(int i);
int qk_feature_present(int i);

/* ------------------------------------------------------------------------------------------------- threads */

enum { QK_MAX_THREADS = 1024 };

/* How many threads a call may use, the one that makes it among them: 1 to QK_MAX_THREADS, for the whole process. */
int qk_get_num_threads(void);
void qk_set_num_threads(int n);

/* --------------------------------------------------------------------------------------------- interruption */

/* What long calls ask some ten times a second, on the thread that made the call: whether they are to end. They then
 * return QK_INTERRUPTED. */
void qk_ask_for_interruption(int (*is_interrupted)(void));
/* Whether the answer was yes, for loops of many calls. */
int qk_interrupted(void);

/* --------------------------------------------------------------------------------------- floating-point mode */

/* For those who compute beside these functions: set the default mode on the calling thread (round to nearest even, no
 * flushing to zero, no traps), and the one back that was found. */
uint64_t qk_set_default_floating_mode(void);
void qk_restore_floating_mode(uint64_t mode);

/* ----------------------------------------------------------------------------------------------- affine ops */

/* How scales lie over an array seen as [rows][cols], C-contiguous.
 *   block > 0:  each row is cut into blocks of `block` values (the last may be short); block j of row r
 *               uses scale number (r % channels) * ceil(cols / block) + j.
 *   block == 0: column c of every row uses scale number c.
 * Per tensor: {1, size, size, 1}. Axis of length C before `inner` values: {outer * C, inner, inner, C}.
 * Last axis: {outer, C, 0, 1}. Groups of g along the last axis: {rows, K, g, rows}. `scales` is how many there are. */
typedef struct qk_layout {
    size_t rows, cols, block, channels, scales;
} qk_layout;

/* An integer type by its range; is_signed tells how bytes are read. */
typedef struct qk_qtype {
    int32_t qmin, qmax;
    int is_signed;
} qk_qtype;

typedef struct qk_scheme {
    int symmetric;
    int full_range; /* symmetric only: spread amax over 2**bits - 1 steps instead of 2**bits - 2 */
} qk_scheme;

/* The least and greatest of the values that share a scale, and 0. */
qk_status qk_ranges(const float *x, const qk_layout *layout, float *low, float *high);
/* The parameters whose levels lie from low to high, and include 0. */
qk_status qk_qparams_of_ranges(const float *low, const float *high, size_t count, qk_qtype type, qk_scheme scheme,
                               float *scale, int32_t *zero_point);
/* Both. */
qk_status qk_choose_qparams(const float *x, const qk_layout *layout, qk_qtype type, qk_scheme scheme,
                            float *scale, int32_t *zero_point);
qk_status qk_quantize(const float *x, const qk_layout *layout, qk_qtype type, const float *scale,
                      const int32_t *zero_point, uint8_t *q);
qk_status qk_dequantize(const uint8_t *q, const qk_layout *layout, qk_qtype type, const float *scale,
                        const int32_t *zero_point, float *x);
qk_status qk_fake_quantize(const float *x, const qk_layout *layout, qk_qtype type, const float *scale,
                           const int32_t *zero_point, float *y);
/* The gradients of fake_quantize, straight through: dx is dy where the rounded value is in range, else 0. Of the values
 * that share a scale, unless both are NULL: dscale, the sum of dy * (round(x / scale) - x / scale), where it is out of
 * range of dy * (bound - zero_point); dclip, the sum of dy out of range. */
qk_status qk_fake_quantize_grad(const float *dy, const float *x, const qk_layout *layout, qk_qtype type,
                                const float *scale, const int32_t *zero_point, float *dx, double *dscale,
                                double *dclip);
/* choose_qparams and quantize in one pass over memory: a block is quantized while it is in cache. */
qk_status qk_dynamic_quantize(const float *x, const qk_layout *layout, qk_qtype type, qk_scheme scheme,
                              uint8_t *q, float *scale, int32_t *zero_point);

/* ------------------------------------------------------------------------------------------------- hadamard */

/* Rows of k values, each cut into blocks of the largest power of two that divides k: the orthonormal Walsh-Hadamard
 * transform H of each block after random signs, y = H (signs * x), or with `inverse` y = signs * (H x). The sign of
 * value i is minus where bit i % 64 of output number i / 64 of splitmix64, started at *seed, is set; a seed that is
 * NULL means no signs. y may be x. */
qk_status qk_hadamard(const float *x, size_t rows, size_t k, const uint64_t *seed, int inverse, float *y);

/* -------------------------------------------------------------------------------------------------- packing */

/* Rows of n values, one a byte, to rows of ceil(n * bits / 8) bytes and back; bits is 1, 2 or 4. */
qk_status qk_pack_bits(const uint8_t *q, size_t rows, size_t n, int bits, int is_signed, int high_first,
                       uint8_t *p);
qk_status qk_unpack_bits(const uint8_t *p, size_t rows, size_t n, int bits, int is_signed, int high_first,
                         uint8_t *q);

/* --------------------------------------------------------------------------------------------- integer GEMM */

/* A byte matrix [rows][cols] with any strides (in bytes). */
typedef struct qk_matrix {
    const uint8_t *data;
    size_t rows, cols;
    ptrdiff_t row_stride, col_stride;
    int is_signed;
} qk_matrix;

/* What a packed right-hand side B [K][N] is and where its parts lie (csrc/packed_b.h). The packed form starts with a
 * copy, for files; who owns a packed form keeps the header apart from it, as packing or the check of a file gave it, and
 * all functions go by that: what lies in a mapped file another program may overwrite at any time. */
typedef struct qk_packed_b {
    uint64_t k, n, padded_n;                  /* n rounded up to the kernel's n_unit */
    uint64_t zero_point, column_sums, panels; /* byte offsets of the parts */
    uint64_t panel_bytes;                     /* distance of panels: k_steps * nr * kr, rounded up to 64 */
    uint32_t k_steps;
    int32_t magnitude;         /* the largest |b - zero_point| that the type and zero points allow */
    uint8_t nr, kr, n_unit;    /* a qk_b_layout */
    uint8_t flip;              /* panels hold byte ^ flip, zero_point is moved likewise */
    uint8_t is_signed;         /* of the original bytes */
    uint8_t any_zero_point;    /* some zero_point is not 0 */
    uint8_t unused[2];
} qk_packed_b;

/* Kernels with one layout of panels read each other's; a file names it. */
typedef struct qk_b_layout {
    uint8_t nr, kr, n_unit; /* columns of a panel, values of k that lie together, columns come in so many */
    uint8_t bytes_signed;   /* bytes are stored as int8 */
} qk_b_layout;
/* That of the selected ISA's kernel, which alone qk_int8_gemm takes. */
qk_b_layout qk_own_b_layout(void);
/* That of an ISA, built or not. */
qk_b_layout qk_b_layout_of_isa(int isa);
/* B packed in panels of any layout: one flat buffer of qk_packed_b_size bytes, 64-byte aligned. The size of a layout that
 * no panels can have is QK_FOREIGN_LAYOUT. */
qk_status qk_packed_b_size(size_t k, size_t n, qk_b_layout layout, size_t *bytes);
/* zero_point: [N] in the signedness of b, or one value when zero_point_count is 1. */
qk_status qk_pack_b(const qk_matrix *b, const int32_t *zero_point, size_t zero_point_count, qk_b_layout layout,
                    qk_packed_b *header, void *packed);
/* The original bytes, [K][N] C-contiguous, and the zero points [N]; any layout. */
qk_status qk_unpack_b(const qk_packed_b *header, const void *packed, uint8_t *b, int32_t *zero_point);
/* QK_OK if the bytes that came from a file, aligned to 64, start with the header of a packed [K][N] of this layout, so
 * that all that is read of it lies within them; else QK_FOREIGN_LAYOUT. */
qk_status qk_check_packed_b(size_t k, size_t n, int is_signed, qk_b_layout layout, const void *packed, size_t bytes,
                            qk_packed_b *header);

typedef enum qk_output { QK_OUT_S32, QK_OUT_F32, QK_OUT_Q8, QK_OUT_Q8_FIXED, QK_OUT_COUNT } qk_output;

typedef struct qk_gemm_args {
    qk_matrix a;                 /* [M][K] */
    const int32_t *a_zero_point; /* [M], or one value when a_zero_point_count is 1 */
    size_t a_zero_point_count;
    const void *b;         /* packed, */
    qk_packed_b b_header;  /* and its header; or NULL, and then */
    qk_matrix plain_b;     /* [K][N], packed for this product alone */
    const int32_t *b_zero_point; /* as in qk_pack_b */
    size_t b_zero_point_count;

    qk_output output;
    void *out;            /* [M][N], unit column stride */
    size_t out_row_bytes; /* distance of its rows in bytes */

    const float *scales; /* [N], or one value when scales_count is 1 */
    size_t scales_count;
    const float *row_scales;  /* [M] or NULL */
    const int32_t *bias_s32;  /* [N] or NULL, added to the accumulator */
    const float *bias_f32;    /* [N] or NULL, added in real units */
    float clamp_low, clamp_high; /* the activation's bounds in real units; infinities for none */

    float out_scale; /* Q8 outputs */
    int32_t out_zero_point;
    qk_qtype out_type;
} qk_gemm_args;

qk_status qk_int8_gemm(const qk_gemm_args *args);

/* Run the selected kernel's multiply instructions on registers alone; returns the multiply-adds done. */
uint64_t qk_gemm_peak(uint64_t rounds);

/* Read the words of a buffer `rounds` times at the memory's full speed; returns their sum modulo 2**32. The buffer's
 * size is a multiple of QK_READ_BLOCK bytes. */
enum { QK_READ_BLOCK = 1024 };
uint32_t qk_read_loop(const void *data, size_t bytes, uint64_t rounds);

/* --------------------------------------------------------------------------------------------- binary GEMM */

/* out [M][N] = the product of signs, k - 2 * (the ones of a xor b); a [M][ceil(k / 8)] and b [N][ceil(k / 8)] hold bits
 * from the lowest of each byte on, 1 for +1 and 0 for -1; bits past k are ignored. All C-contiguous. */
qk_status qk_binary_gemm(const uint8_t *a, size_t m, const uint8_t *b, size_t n, size_t k, int32_t *out);

/* ----------------------------------------------------------------------------------- low-bit weights, linear */

/* What the codes of a weight are. */
typedef enum qk_codes {
    QK_CODES_U8, /* evenly spaced: real = scale * (code - zero point), in 8, 4 or 2 bits */
    QK_CODES_U4,
    QK_CODES_U2,
    QK_CODES_U1,       /* signs: real = scale where the code is 1, -scale where it is 0 */
    QK_CODES_TABLE,    /* 4 bits: real = scale * levels[code] */
    QK_CODES_TRELLIS2, /* 2, 3 or 4 bits: real = scale * levels[state], a state being 6 bits of a word of 32 weights */
    QK_CODES_TRELLIS3,
    QK_CODES_TRELLIS4,
    QK_CODES_FINE2, /* 2, 3 or 4 bits: real = scale * qk_fine_level(state), 12 to 16 bits of a block */
    QK_CODES_FINE3,
    QK_CODES_FINE4,
    QK_CODES_COUNT
} qk_codes;

/* A weight [N][K]. A row is cut into groups of `group` values along k that share a scale and a zero point; group 0 is one
 * group a row. group is a multiple of 32. */
typedef struct qk_weight {
    size_t n, k, group;
    qk_codes coding;
    int window;           /* bits of a state of QK_CODES_FINE */
    int scale_bytes;      /* 2: float16; 4: float32 */
    const uint8_t *codes; /* [N][K], one a byte; of a trellis [N][blocks * block * bits / 8], the bits of its words one
                             after the other, the lowest first */
    const int8_t *levels; /* [16] or [N][16] of a table, [64] of a trellis, or NULL */
    int row_tables;       /* levels is [N][16] */
    const void *scales;   /* [N][groups] */
    const uint8_t *zero_points; /* [N][groups] of evenly spaced codes, or NULL: 2**(bits - 1) everywhere */
} qk_weight;

/* How records of a packed weight are made (csrc/kernels.h). */
typedef struct qk_records {
    uint32_t block;
    uint8_t scale_bytes;     /* 2 for float16, 4 for float32 */
    uint8_t has_zero_points; /* uint8 [nr]; otherwise all are alike, and in qk_grouped_tile.terms */
    uint8_t row_tables;      /* a table for each row of W, not one for all */
    uint8_t window;          /* bits of a fine trellis' state */
    size_t bytes;            /* of a record */
} qk_records;

/* What a packed weight is and where its parts lie (csrc/packed_weight.h): kept apart from the packed form, as qk_packed_b
 * is. */
typedef struct qk_packed_weight {
    uint64_t n, k;
    uint64_t levels;              /* offset */
    uint64_t panels, panel_bytes; /* offset of panel 0, distance of panels */
    uint64_t table_bytes;         /* of a panel, before its first record */
    uint64_t group;               /* values that share a scale: a multiple of records.block, or k rounded up to one */
    qk_records records;
    uint32_t blocks; /* records of a panel */
    uint8_t codes;   /* a qk_codes */
    uint8_t nr, kr, bytes_signed, lanes; /* a qk_weight_layout */
    uint8_t zero; /* the byte that means 0.0, where the weight has no zero points of its own */
    uint8_t flip; /* 0x80 where the kernel multiplies int8: bytes are stored ^ 0x80 */
    uint8_t unused[5];
} qk_packed_weight;

/* The values along k that are summed as integers: a divisor of the group, or nearly equal parts of a whole row. */
size_t qk_weight_block(size_t k, size_t group);
/* Kernels with one layout of panels read each other's; a file names it. */
typedef struct qk_weight_layout {
    uint8_t nr, kr;       /* columns of a panel, values of k that lie together */
    uint8_t bytes_signed; /* bytes are stored as int8 */
    uint8_t lanes;        /* of 16 bytes, in a vector that is looked up in tables by row */
} qk_weight_layout;
/* That of the selected ISA's kernel, which alone qk_linear takes. */
qk_weight_layout qk_own_weight_layout(void);
/* That of an ISA, built or not. */
qk_weight_layout qk_weight_layout_of_isa(int isa);
/* Packed in any layout: one flat buffer of qk_packed_weight_size bytes, aligned to 64. The size of one that no panels can
 * have is QK_FOREIGN_LAYOUT. */
qk_status qk_packed_weight_size(const qk_weight *shape, qk_weight_layout layout, size_t *bytes);
qk_status qk_pack_weight(const qk_weight *weight, qk_weight_layout layout, qk_packed_weight *header, void *packed);
/* The original codes, scales and zero points; any layout. */
qk_status qk_unpack_weight(const qk_packed_weight *header, const void *packed, uint8_t *codes, void *scales,
                           uint8_t *zero_points);
/* QK_OK if the bytes that came from a file, aligned to 64, start with the header of a packed weight of this shape and
 * layout, so that all that is read of it lies within them; else QK_FOREIGN_LAYOUT. The arrays of shape count as there or
 * NULL. */
qk_status qk_check_packed_weight(const qk_weight *shape, qk_weight_layout layout, const void *packed, size_t bytes,
                                 qk_packed_weight *header);

/* How the rows of x enter a product: as int8 with one scale a row or a block of k, or at float32's accuracy, as
 * integers of 23 bits on a power of two a block (csrc/split.h). */
typedef enum qk_rows { QK_ROWS_INT8, QK_ROWS_INT8_BLOCKS, QK_ROWS_FLOAT32 } qk_rows;

typedef enum qk_activation { QK_CLAMP, QK_GELU, QK_SILU } qk_activation;

typedef struct qk_linear_args {
    const float *x; /* [M][K], C-contiguous */
    size_t m;
    const void *weight; /* packed, */
    qk_packed_weight header; /* and its header */
    const float *input_scales; /* [K], what x is multiplied with first, or NULL */
    const uint64_t *seed;      /* of the rotation of x by qk_hadamard, or NULL; not both */
    qk_rows rows;
    const float *bias; /* [N] or NULL */
    qk_activation activation;
    float low, high; /* of QK_CLAMP; infinities for none */
    float *out;      /* [M][N], C-contiguous */
} qk_linear_args;

/* out = activation(x W' + bias), by float64 where float32 would overflow on the way (csrc/ops/linear_wide.h). On an error out
 * is unspecified. */
qk_status qk_linear(const qk_linear_args *args);

/* The sum of squares, in double and in the same order everywhere. */
qk_status qk_energy(const float *x, size_t n, double *energy);

/* --------------------------------------------------------------------------------------------------- trellis */

/* Rows of `steps` values to tail-biting words of the bitshift trellis, steps * bits / 8 bytes each: value p is encoded
 * as level number (bits [bits * p, bits * p + window) of the word, circular), and the squared error of a row is about
 * the least for the overlap that csrc/ops/trellis.c picks. levels: [2**window]; bits < window <= 16; steps * bits is a
 * multiple of 8 and at least window. */
qk_status qk_encode_trellis(const float *x, size_t rows, size_t steps, const int8_t *levels, int bits, int window,
                            uint8_t *stream);

#endif
