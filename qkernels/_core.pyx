# cython: language_level=3
"""The binding: arrays that the Python layer has checked go in, a status comes out and becomes an exception.

Every array argument here is C-contiguous and of the dtype that its C counterpart names; int8_gemm alone takes its
arguments as users give them.
"""

from c_qkernels cimport *
from libc.math cimport INFINITY
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t, uint64_t

cimport cython
cimport numpy as cnp

import os

import numpy as np

from qkernels import _arguments as arguments

cnp.import_array()

cdef int NO_OVERLAP_WORK = 1000  # bound on the search of np.shares_memory, which is exponential in bad cases

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
    QK_BAD_B_ZERO_POINT: (ValueError, "b_zero_point: must lie in the range of the quantized type everywhere"),
    QK_FOREIGN_LAYOUT: (ValueError, "b_q: packed for another ISA than the selected one; call pack_b again"),
    QK_SCALE_OVERFLOW: (ValueError, "scales: combined with row_scales, out_scale or bias they overflow float32"),
    QK_FIXED_RANGE: (NotImplementedError,
                     "requant: 'fixed' takes accumulators of 32 bits, which this K, bias or zero point may exceed"),
    QK_FIXED_SCALE: (ValueError, "scales: scales / out_scale must be below 2**30 with requant='fixed'"),
    QK_TOO_FAR: (ValueError, "{data}: contains values beyond 2**40 times the scale"),
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


def emulated_isas():
    """The ISAs that a test build emulates (csrc/build.py); none in any other."""
    return [qk_isa_name(i).decode() for i in range(qk_isa_count()) if qk_isa_emulated(i)]


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


# ------------------------------------------------------------------------------------------------- threads

MAX_THREADS = QK_MAX_THREADS


def get_num_threads():
    return qk_get_num_threads()


def set_num_threads(int n):
    """n in [1, MAX_THREADS]."""
    qk_set_num_threads(n)


# -------------------------------------------------------------------------------------------------- results

cpdef cnp.ndarray empty(tuple shape, cnp.dtype dtype, str name):
    """np.empty, with a ValueError that names the argument when the size overflows."""
    cdef cnp.npy_intp lengths[64]  # as many as NumPy's arrays have at most
    cdef int ndim = 0
    for length in shape:
        lengths[ndim] = length
        ndim += 1
    try:
        return cnp.PyArray_EMPTY(ndim, lengths, dtype.type_num, 0)
    except ValueError:
        raise ValueError(f"{name}: a result of shape {shape} is too large to address") from None


cdef void bounds(cnp.ndarray x, size_t *low, size_t *high) noexcept:
    """The addresses between which x lies."""
    cdef ptrdiff_t span
    low[0] = <size_t>data(x)
    high[0] = low[0] + cnp.PyArray_ITEMSIZE(x)
    for axis in range(cnp.PyArray_NDIM(x)):
        span = (x.shape[axis] - 1) * x.strides[axis]
        if span < 0:
            low[0] += span
        else:
            high[0] += span


cdef bint overlap(cnp.ndarray x, cnp.ndarray y) except -1:
    """Whether two arrays share memory; yes where finding out would take too long."""
    cdef size_t x_low, x_high, y_low, y_high
    bounds(x, &x_low, &x_high)
    bounds(y, &y_low, &y_high)
    if x_high <= y_low or y_high <= x_low:
        return False
    try:
        return np.shares_memory(x, y, max_work=NO_OVERLAP_WORK)
    except np.exceptions.TooHardError:
        return True


cdef class Output:
    """The `out=` protocol: `.buffer` is what to compute into, `.done()` what to return.

    The buffer is `out` itself where that is C-contiguous, else a temporary that `done` copies.
    """

    cdef cnp.ndarray out
    cdef readonly cnp.ndarray buffer

    def __init__(self, out, tuple shape, dtype, str name, *inputs):
        self.take(out, shape, np.dtype(dtype), name, inputs)

    cdef int take(self, out, tuple shape, cnp.dtype dtype, str name, tuple inputs) except -1:
        if out is None:
            self.out = self.buffer = empty(shape, dtype, name)
            return 0
        if not isinstance(out, cnp.ndarray):
            raise TypeError(f"out: got {type(out).__name__}, takes a NumPy array")
        if out.dtype != dtype or not out.dtype.isnative:
            raise TypeError(f"out: got dtype {out.dtype}, takes {dtype}")
        if out.shape != shape:
            raise ValueError(f"out: got shape {out.shape}, takes {shape}")
        if not cnp.PyArray_ISWRITEABLE(out):
            raise ValueError("out: is read-only")
        for other in inputs:
            if isinstance(other, cnp.ndarray) and overlap(out, other):
                raise ValueError("out: shares memory with an input")
        self.out = out
        self.buffer = out if cnp.PyArray_IS_C_CONTIGUOUS(out) else empty(shape, dtype, name)

    cpdef cnp.ndarray done(self):
        if self.buffer is not self.out:
            self.out[...] = self.buffer
        return self.out


# ----------------------------------------------------------------------------------------------- affine ops
# layout is (rows, cols, block, channels, scales); qtype is (qmin, qmax, is_signed); scheme (symmetric, full_range).

def ranges(cnp.ndarray x, qk_layout layout, cnp.ndarray low, cnp.ndarray high):
    cdef qk_status status
    with nogil:
        status = qk_ranges(<const float *>data(x), &layout, <float *>data(low), <float *>data(high))
    check(status)


def qparams_of_ranges(cnp.ndarray low, cnp.ndarray high, qk_qtype qtype, qk_scheme scheme, cnp.ndarray scale,
                      cnp.ndarray zero_point):
    """All of one size."""
    cdef qk_status status
    with nogil:
        status = qk_qparams_of_ranges(<const float *>data(low), <const float *>data(high), low.shape[0], qtype, scheme,
                                      <float *>data(scale), <int32_t *>data(zero_point))
    check(status)


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


def fake_quantize_grad(cnp.ndarray dy, cnp.ndarray x, qk_layout layout, qk_qtype qtype, cnp.ndarray scale,
                       cnp.ndarray zero_point, cnp.ndarray dx, cnp.ndarray dscale, cnp.ndarray dclip):
    """dscale, dclip: float64 of the shape of scale, or None."""
    cdef qk_status status
    with nogil:
        status = qk_fake_quantize_grad(<const float *>data(dy), <const float *>data(x), &layout, qtype,
                                       <const float *>data(scale), <const int32_t *>data(zero_point),
                                       <float *>data(dx), <double *>data(dscale), <double *>data(dclip))
    check(status)


def dynamic_quantize(cnp.ndarray x, qk_layout layout, qk_qtype qtype, qk_scheme scheme, cnp.ndarray q,
                     cnp.ndarray scale, cnp.ndarray zero_point):
    cdef qk_status status
    with nogil:
        status = qk_dynamic_quantize(<const float *>data(x), &layout, qtype, scheme, <uint8_t *>data(q),
                                     <float *>data(scale), <int32_t *>data(zero_point))
    check(status)


def energy(cnp.ndarray x):
    """The sum of the squares of a float32 array, C-contiguous, as float64; the same on every processor."""
    cdef size_t n = x.size
    cdef double result
    with nogil:
        result = qk_energy(<const float *>data(x), n)
    return result


# -------------------------------------------------------------------------------------------------- packing

def pack_bits(cnp.ndarray q, size_t rows, size_t n, int bits, bint is_signed, bint high_first, cnp.ndarray p):
    cdef qk_status status
    with nogil:
        status = qk_pack_bits(<const uint8_t *>data(q), rows, n, bits, is_signed, high_first, <uint8_t *>data(p))
    check(status, "q")


def unpack_bits(cnp.ndarray p, size_t rows, size_t n, int bits, bint is_signed, bint high_first, cnp.ndarray q):
    with nogil:
        qk_unpack_bits(<const uint8_t *>data(p), rows, n, bits, is_signed, high_first, <uint8_t *>data(q))


include "_core_gemm.pxi"
include "_core_binary.pxi"
include "_core_linear.pxi"
include "_core_hadamard.pxi"
include "_core_trellis.pxi"
