# csrc/include/qkernels.h, in the same order.
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t, uint64_t

cdef extern from "qkernels.h" nogil:
    ctypedef enum qk_status:
        QK_OK
        QK_NO_MEMORY
        QK_TOO_LARGE
        QK_NAN
        QK_NOT_FINITE
        QK_OUT_OF_RANGE
        QK_BAD_SCALE
        QK_BAD_ROW_SCALES
        QK_BAD_OUT_SCALE
        QK_BAD_BIAS
        QK_BAD_ZERO_POINT
        QK_BAD_B_ZERO_POINT
        QK_FOREIGN_LAYOUT
        QK_SCALE_OVERFLOW
        QK_FIXED_RANGE
        QK_FIXED_SCALE
        QK_TOO_FAR
        QK_INTERRUPTED

    int qk_isa_count()
    const char *qk_isa_name(int isa)
    int qk_isa_built(int isa)
    int qk_isa_supported(int isa)
    bint qk_isa_emulated(int isa)
    void qk_select_isa(int isa)
    int qk_selected_isa()
    int qk_slot_count()
    const char *qk_slot_name(int slot)
    int qk_slot_isa(int slot)
    const char *qk_feature_name(int i)
    int qk_feature_present(int i)

    int QK_MAX_THREADS
    int qk_get_num_threads()
    void qk_set_num_threads(int n)

    void qk_ask_for_interruption(int (*is_interrupted)() noexcept nogil)
    int qk_interrupted()

    uint64_t qk_set_default_floating_mode()
    void qk_restore_floating_mode(uint64_t mode)

    ctypedef struct qk_layout:
        size_t rows, cols, block, channels, scales

    ctypedef struct qk_qtype:
        int32_t qmin, qmax
        int is_signed

    ctypedef struct qk_scheme:
        int symmetric
        int full_range

    qk_status qk_ranges(const float *x, const qk_layout *layout, float *low, float *high)
    qk_status qk_qparams_of_ranges(const float *low, const float *high, size_t count, qk_qtype type, qk_scheme scheme,
                                   float *scale, int32_t *zero_point)
    qk_status qk_choose_qparams(const float *x, const qk_layout *layout, qk_qtype type, qk_scheme scheme,
                                float *scale, int32_t *zero_point)
    qk_status qk_quantize(const float *x, const qk_layout *layout, qk_qtype type, const float *scale,
                          const int32_t *zero_point, uint8_t *q)
    qk_status qk_dequantize(const uint8_t *q, const qk_layout *layout, qk_qtype type, const float *scale,
                            const int32_t *zero_point, float *x)
    qk_status qk_fake_quantize(const float *x, const qk_layout *layout, qk_qtype type, const float *scale,
                               const int32_t *zero_point, float *y)
    qk_status qk_fake_quantize_grad(const float *dy, const float *x, const qk_layout *layout, qk_qtype type,
                                    const float *scale, const int32_t *zero_point, float *dx, double *dscale,
                                    double *dclip)
    qk_status qk_dynamic_quantize(const float *x, const qk_layout *layout, qk_qtype type, qk_scheme scheme,
                                  uint8_t *q, float *scale, int32_t *zero_point)

    qk_status qk_hadamard(const float *x, size_t rows, size_t k, const uint64_t *seed, int inverse, float *y)

    qk_status qk_pack_bits(const uint8_t *q, size_t rows, size_t n, int bits, int is_signed, int high_first,
                           uint8_t *p)
    qk_status qk_unpack_bits(const uint8_t *p, size_t rows, size_t n, int bits, int is_signed, int high_first,
                             uint8_t *q)

    ctypedef struct qk_matrix:
        const uint8_t *data
        size_t rows, cols
        ptrdiff_t row_stride, col_stride
        int is_signed

    ctypedef struct qk_packed_b:
        uint8_t nr
    ctypedef struct qk_b_layout:
        uint8_t nr, kr, n_unit
        uint8_t bytes_signed
    qk_b_layout qk_own_b_layout()
    qk_b_layout qk_b_layout_of_isa(int isa)
    qk_status qk_packed_b_size(size_t k, size_t n, qk_b_layout layout, size_t *bytes)
    qk_status qk_pack_b(const qk_matrix *b, const int32_t *zero_point, size_t zero_point_count, qk_b_layout layout,
                        qk_packed_b *header, void *packed)
    qk_status qk_unpack_b(const qk_packed_b *header, const void *packed, uint8_t *b, int32_t *zero_point)
    qk_status qk_check_packed_b(size_t k, size_t n, int is_signed, qk_b_layout layout, const void *packed, size_t bytes,
                                qk_packed_b *header)

    ctypedef enum qk_output:
        QK_OUT_S32
        QK_OUT_F32
        QK_OUT_Q8
        QK_OUT_Q8_FIXED

    ctypedef struct qk_gemm_args:
        qk_matrix a
        const int32_t *a_zero_point
        size_t a_zero_point_count
        const void *b
        qk_packed_b b_header
        qk_matrix plain_b
        const int32_t *b_zero_point
        size_t b_zero_point_count
        qk_output output
        void *out
        size_t out_row_bytes
        const float *scales
        size_t scales_count
        const float *row_scales
        const int32_t *bias_s32
        const float *bias_f32
        float clamp_low, clamp_high
        float out_scale
        int32_t out_zero_point
        qk_qtype out_type

    qk_status qk_int8_gemm(const qk_gemm_args *args)
    uint64_t qk_gemm_peak(uint64_t rounds)
    int QK_READ_BLOCK
    uint32_t qk_read_loop(const void *data, size_t bytes, uint64_t rounds)

    qk_status qk_binary_gemm(const uint8_t *a, size_t m, const uint8_t *b, size_t n, size_t k, int32_t *out)

    ctypedef enum qk_codes:
        QK_CODES_TABLE
        QK_CODES_TRELLIS2
        QK_CODES_FINE2
        QK_CODES_COUNT

    ctypedef struct qk_weight:
        size_t n, k, group
        qk_codes coding
        int window
        int scale_bytes
        const uint8_t *codes
        const int8_t *levels
        int row_tables
        const void *scales
        const uint8_t *zero_points

    ctypedef struct qk_packed_weight:
        uint8_t nr

    size_t qk_weight_block(size_t k, size_t group)
    ctypedef struct qk_weight_layout:
        uint8_t nr, kr
        uint8_t bytes_signed
        uint8_t lanes
    qk_weight_layout qk_own_weight_layout()
    qk_weight_layout qk_weight_layout_of_isa(int isa)
    qk_status qk_packed_weight_size(const qk_weight *shape, qk_weight_layout layout, size_t *bytes)
    qk_status qk_pack_weight(const qk_weight *weight, qk_weight_layout layout, qk_packed_weight *header, void *packed)
    qk_status qk_unpack_weight(const qk_packed_weight *header, const void *packed, uint8_t *codes, void *scales,
                               uint8_t *zero_points)
    qk_status qk_check_packed_weight(const qk_weight *shape, qk_weight_layout layout, const void *packed, size_t bytes,
                                     qk_packed_weight *header)

    ctypedef enum qk_rows:
        QK_ROWS_INT8
        QK_ROWS_INT8_BLOCKS
        QK_ROWS_FLOAT32

    ctypedef enum qk_activation:
        QK_CLAMP
        QK_GELU
        QK_SILU

    ctypedef struct qk_linear_args:
        const float *x
        size_t m
        const void *weight
        qk_packed_weight header
        const float *input_scales
        const uint64_t *seed
        qk_rows rows
        const float *bias
        qk_activation activation
        float low, high
        float *out

    qk_status qk_linear(const qk_linear_args *args)

    qk_status qk_energy(const float *x, size_t n, double *energy)

    qk_status qk_encode_trellis(const float *x, size_t rows, size_t steps, const int8_t *levels, int bits, int window,
                                uint8_t *stream)
