# cython: language_level=3
"""The binding: arrays that the Python layer has checked go in, a status comes out and becomes an exception.

Every array argument here is C-contiguous (matrices: any strides) and of the dtype that its C counterpart names.
"""

from c_qkernels cimport *
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cimport numpy as cnp

import os

import numpy as np

cnp.import_array()

OUT_INT32, OUT_FLOAT32, OUT_QUANTIZED, OUT_FIXED = QK_OUT_S32, QK_OUT_F32, QK_OUT_Q8, QK_OUT_Q8_FIXED

_ERRORS = {
    QK_NO_MEMORY: (MemoryError, "not enough memory for the work space of this call"),
    QK_TOO_LARGE: (ValueError, "{data}: its size is beyond what can be addressed or summed exactly"),
    QK_NAN: (ValueError, "{data}: contains NaN, which has no quantized value"),
    QK_NOT_FINITE: (ValueError, "{data}: contains NaN or infinity, so it has no finite range"),
    QK_OUT_OF_RANGE: (ValueError, "{data}: contains values that do not fit the given number of bits"),
    QK_BAD_SCALE: (ValueError, "{scale}: must be finite and greater than 0 everywhere"),
    QK_BAD_ROW_SCALES: (ValueError, "row_scales: must be finite and greater than 0 everywhere"),
    QK_BAD_OUT_SCALE: (ValueError, "out_scale: must be finite and greater than 0"),
    QK_BAD_BIAS: (ValueError, "bias: must be finite everywhere"),
    QK_BAD_ZERO_POINT: (ValueError, "{zero_point}: must lie in the range of the quantized type everywhere"),
    QK_FOREIGN_LAYOUT: (ValueError, "b_q: packed for another ISA than the selected one; call pack_b again"),
    QK_SCALE_OVERFLOW: (ValueError, "scales: combined with row_scales, out_scale or bias they overflow float32"),
    QK_FIXED_RANGE: (NotImplementedError,
                     "requant: 'fixed' takes accumulators of 32 bits, which this K, bias or zero point may exceed"),
    QK_FIXED_SCALE: (ValueError, "scales: scales / out_scale must be below 2**30 with requant='fixed'"),
}


cdef int check(qk_status status, str data="x", str zero_point="zero_point", str scale="scale") except -1:
    if status != QK_OK:
        error, message = _ERRORS[status]
        raise error(message.format(data=data, scale=scale, zero_point=zero_point))
    return 0


cdef inline void *data(cnp.ndarray array) noexcept nogil:
    return NULL if array is None else cnp.PyArray_DATA(array)


# ------------------------------------------------------------------------------------------------ dispatch

def isas():
    """(name, built, supported) of each ISA, weakest first."""
    return [(qk_isa_name(i).decode(), bool(qk_isa_built(i)), bool(qk_isa_supported(i)))
            for i in range(qk_isa_count())]


def features():
    """(name, present) of each CPU feature that an ISA asks for."""
    cdef int i = 0
    found = []
    while qk_feature_name(i) != NULL:
        found.append((qk_feature_name(i).decode(), bool(qk_feature_present(i))))
        i += 1
    return found


def kernels():
    """The ISA whose kernel is in each slot."""
    return {qk_slot_name(i).decode(): qk_isa_name(qk_slot_isa(i)).decode() for i in range(qk_slot_count())}


def selected_isa():
    return qk_isa_name(qk_selected_isa()).decode()


def select_isa(str name, str source="name"):
    """Use kernels up to this ISA; None for the best. Not while other threads compute."""
    known = isas()
    if name is None:
        name = [isa for isa, built, supported in known if supported][-1]
    names = [isa for isa, built, supported in known]
    usable = ", ".join(isa for isa, built, supported in known if supported)
    if name not in names:
        raise ValueError(f"{source}: unknown ISA {name!r}; usable here: {usable}")
    index = names.index(name)
    if not known[index][1]:
        raise ValueError(f"{source}: ISA {name!r} is not built into this package; usable here: {usable}")
    if not known[index][2]:
        raise ValueError(f"{source}: ISA {name!r} is not supported by this CPU; usable here: {usable}")
    qk_select_isa(index)


select_isa(os.environ.get("QKERNELS_ISA") or None, "QKERNELS_ISA")


# ----------------------------------------------------------------------------------------------- affine ops
# layout is (rows, cols, block, channels, scales); qtype is (qmin, qmax, is_signed); scheme (symmetric, full_range).

def choose_qparams(cnp.ndarray x, qk_layout layout, qk_qtype qtype, qk_scheme scheme,
                   cnp.ndarray scale, cnp.ndarray zero_point):
    cdef qk_status status
    with nogil:
        status = qk_choose_qparams(<const float *>data(x), &layout, qtype, scheme,
                                   <float *>data(scale), <int32_t *>data(zero_point))
    check(status)


def quantize(cnp.ndarray x, qk_layout layout, qk_qtype qtype, cnp.ndarray scale, cnp.ndarray zero_point,
             cnp.ndarray q):
    cdef qk_status status
    with nogil:
        status = qk_quantize(<const float *>data(x), &layout, qtype, <const float *>data(scale),
                             <const int32_t *>data(zero_point), <uint8_t *>data(q))
    check(status)


def dequantize(cnp.ndarray q, qk_layout layout, qk_qtype qtype, cnp.ndarray scale, cnp.ndarray zero_point,
               cnp.ndarray x):
    cdef qk_status status
    with nogil:
        status = qk_dequantize(<const uint8_t *>data(q), &layout, qtype, <const float *>data(scale),
                               <const int32_t *>data(zero_point), <float *>data(x))
    check(status)


def fake_quantize(cnp.ndarray x, qk_layout layout, qk_qtype qtype, cnp.ndarray scale, cnp.ndarray zero_point,
                  cnp.ndarray y):
    cdef qk_status status
    with nogil:
        status = qk_fake_quantize(<const float *>data(x), &layout, qtype, <const float *>data(scale),
                                  <const int32_t *>data(zero_point), <float *>data(y))
    check(status)


def dynamic_quantize(cnp.ndarray x, qk_layout layout, qk_qtype qtype, qk_scheme scheme, cnp.ndarray q,
                     cnp.ndarray scale, cnp.ndarray zero_point):
    cdef qk_status status
    with nogil:
        status = qk_dynamic_quantize(<const float *>data(x), &layout, qtype, scheme, <uint8_t *>data(q),
                                     <float *>data(scale), <int32_t *>data(zero_point))
    check(status)


# -------------------------------------------------------------------------------------------------- packing

def pack_bits(cnp.ndarray q, size_t rows, size_t n, int bits, bint is_signed, bint high_first, cnp.ndarray p):
    cdef qk_status status
    with nogil:
        status = qk_pack_bits(<const uint8_t *>data(q), rows, n, bits, is_signed, high_first, <uint8_t *>data(p))
    check(status, "q")


def unpack_bits(cnp.ndarray p, size_t rows, size_t n, int bits, bint is_signed, bint high_first, cnp.ndarray q):
    with nogil:
        qk_unpack_bits(<const uint8_t *>data(p), rows, n, bits, is_signed, high_first, <uint8_t *>data(q))


# --------------------------------------------------------------------------------------------- integer GEMM

cdef qk_matrix matrix_of(cnp.ndarray array):
    """A 2-D int8 or uint8 array of any strides."""
    cdef qk_matrix matrix
    matrix.data = <const uint8_t *>cnp.PyArray_DATA(array)
    matrix.rows = array.shape[0]
    matrix.cols = array.shape[1]
    matrix.row_stride = array.strides[0]
    matrix.col_stride = array.strides[1]
    matrix.is_signed = cnp.PyArray_TYPE(array) == cnp.NPY_INT8
    return matrix


def packed_b_size(size_t k, size_t n):
    cdef size_t size = 0
    check(qk_packed_b_size(k, n, &size), "b_q")
    return size


def pack_b(cnp.ndarray b, cnp.ndarray zero_point, cnp.ndarray packed):
    cdef qk_matrix matrix = matrix_of(b)
    cdef size_t count = zero_point.shape[0]
    cdef qk_status status
    with nogil:
        status = qk_pack_b(&matrix, <const int32_t *>data(zero_point), count, data(packed))
    check(status, "b_q", "b_zero_point")


def unpack_b(cnp.ndarray packed, cnp.ndarray b, cnp.ndarray zero_point):
    with nogil:
        qk_unpack_b(data(packed), <uint8_t *>data(b), <int32_t *>data(zero_point))


def packed_b_isa(cnp.ndarray packed):
    return qk_isa_name(qk_packed_b_isa(data(packed))).decode()


def int8_gemm(cnp.ndarray a, cnp.ndarray packed_b, cnp.ndarray a_zero_point, int output, cnp.ndarray out,
              cnp.ndarray scales, cnp.ndarray row_scales, cnp.ndarray bias, float clamp_low, float clamp_high,
              float out_scale, int out_zero_point, qk_qtype out_type):
    cdef qk_gemm_args args
    cdef qk_status status
    cdef bint integer_bias = bias is not None and cnp.PyArray_TYPE(bias) == cnp.NPY_INT32
    args.a = matrix_of(a)
    args.a_zero_point = <const int32_t *>data(a_zero_point)
    args.a_zero_point_count = a_zero_point.shape[0]
    args.b = data(packed_b)
    args.output = <qk_output>output
    args.out = data(out)
    args.out_row_bytes = out.strides[0]
    args.scales = <const float *>data(scales)
    args.scales_count = 0 if scales is None else scales.shape[0]
    args.row_scales = <const float *>data(row_scales)
    args.bias_s32 = <const int32_t *>data(bias if integer_bias else None)
    args.bias_f32 = <const float *>data(None if integer_bias else bias)
    args.clamp_low, args.clamp_high = clamp_low, clamp_high
    args.out_scale, args.out_zero_point, args.out_type = out_scale, out_zero_point, out_type
    with nogil:
        status = qk_int8_gemm(&args)
    check(status, "a_q", "a_zero_point", "scales")


def gemm_peak(uint64_t rounds):
    """Run the selected GEMM kernel's multiply instructions on registers alone; the multiply-adds done."""
    cdef uint64_t done
    with nogil:
        done = qk_gemm_peak(rounds)
    return done


READ_BLOCK = QK_READ_BLOCK


def read_loop(cnp.ndarray buffer, uint64_t rounds):
    """Read a buffer of whole READ_BLOCKs `rounds` times; the sum of its 32-bit words."""
    cdef uint32_t sum
    cdef size_t size = cnp.PyArray_NBYTES(buffer)
    with nogil:
        sum = qk_read_loop(data(buffer), size, rounds)
    return sum
