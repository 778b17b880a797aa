# cython: language_level=3
"""The binding: arrays that the Python layer has checked go in, a status comes out and becomes an exception.

Every array argument here is C-contiguous, aligned and of the dtype that its C counterpart names, with as many values as C
reads or writes; another one is a ValueError (`expect`). int8_gemm alone takes its arguments as users give them.
"""

from c_qkernels cimport *
from libc.math cimport INFINITY
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t, uint64_t

cimport cython
cimport numpy as cnp

import functools
import os
import threading

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
        raise_pending()
        error, message = _ERRORS[status]
        raise error(message.format(data=data, scale=scale, zero_point=zero_point))
    return 0


# --------------------------------------------------------------------------------------------- interruption
# A signal handler runs, and may raise, where a long call asks whether it is to end. Python has it do so on the main thread
# alone; others do not even ask, as that takes the GIL.

cdef extern from *:
    """
    static int raise_pending(void) { return PyErr_Occurred() ? -1 : 0; }
    """
    int raise_pending() except -1  # the exception of a signal handler, if there is one

cdef extern from "Python.h":
    int run_signal_handlers "PyErr_CheckSignals"() noexcept  # leaves an exception where it is
    unsigned long this_thread "PyThread_get_thread_ident"() noexcept nogil

cdef unsigned long main_thread = threading.main_thread().ident


cdef int is_interrupted() noexcept nogil:
    if this_thread() != main_thread:
        return False
    with gil:
        return run_signal_handlers()


def _forked():
    """The thread that forked is the main one of the child."""
    global main_thread
    main_thread = this_thread()


os.register_at_fork(after_in_child=_forked)
qk_ask_for_interruption(is_interrupted)


# --------------------------------------------------------------------------------------- floating-point mode

def in_default_floating_mode(function):
    """Have what a function computes by NumPy be computed in the default floating-point mode, whatever the caller's is.

    Another library of the process may have set one: torch.set_flush_denormal does, and so does the start of a library that
    was linked with -ffast-math. C sees to itself; public functions and methods that compute with floats are decorated.
    The mode is that of this thread: what NumPy's linear algebra computes on threads of its own is in theirs.
    """
    @functools.wraps(function)
    def call(*args, **options):
        cdef uint64_t callers = qk_set_default_floating_mode()
        try:
            return function(*args, **options)
        finally:
            qk_restore_floating_mode(callers)
    return call


def set_floating_mode(mode):
    """Give this thread another mode, None for the default, and return the one that it had: the CPU's register, for tests."""
    cdef uint64_t before = qk_set_default_floating_mode()
    if mode is not None:
        qk_restore_floating_mode(mode)
    return before


cdef inline void *data(cnp.ndarray array) noexcept nogil:
    return NULL if array is None else cnp.PyArray_DATA(array)


# --------------------------------------------------------------------------------------------------- arrays

cdef inline int expect(cnp.ndarray x, int type_number, size_t count, str name) except -1:
    """Refuse an array that C would read beyond, or read otherwise. Whole bytes are int8 or uint8."""
    if (x is not None and (cnp.PyArray_TYPE(x) == type_number
                           or (type_number == cnp.NPY_UINT8 and cnp.PyArray_TYPE(x) == cnp.NPY_INT8))
            and cnp.PyArray_ISCARRAY_RO(x) and <size_t>cnp.PyArray_SIZE(x) == count):
        return 0
    refuse(x, type_number, count, name)


cdef inline int expect_result(cnp.ndarray x, int type_number, size_t count, str name) except -1:
    """Likewise, where C writes."""
    expect(x, type_number, count, name)
    if not cnp.PyArray_ISWRITEABLE(x):
        raise ValueError(f"{name}: is read-only")


cdef int refuse(cnp.ndarray x, int type_number, size_t count, str name) except -1:
    got = "None" if x is None else f"{(<object>x).dtype} of shape {(<object>x).shape} and strides {(<object>x).strides}"
    raise ValueError(f"{name}: got {got}, takes {count} values of {cnp.PyArray_DescrFromType(type_number)}, contiguous and "
                     "aligned")


cpdef cnp.ndarray contiguous(cnp.ndarray x):
    """x, or a copy where it is not C-contiguous or not aligned, as C takes it."""
    return x if cnp.PyArray_ISCARRAY_RO(x) else np.array(x, order="C", subok=False)


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

    The buffer is `out` itself where that is C-contiguous and aligned, else a temporary that `done` copies.
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
        self.buffer = out if cnp.PyArray_ISCARRAY_RO(out) else empty(shape, dtype, name)

    cpdef cnp.ndarray done(self):
        if self.buffer is not self.out:
            self.out[...] = self.buffer
        return self.out


# ----------------------------------------------------------------------------------------------- affine ops
# layout is (rows, cols, block, channels, scales); qtype is (qmin, qmax, is_signed); scheme (symmetric, full_range).

cdef size_t size_of(qk_layout layout) except? 0:
    """How many values it lays out."""
    cdef size_t used = 0
    if layout.rows and layout.cols:
        used = layout.cols
        if layout.block:
            used = layout.channels * (layout.cols // layout.block + (layout.cols % layout.block != 0))
    if layout.scales < used:
        raise ValueError(f"layout: got {layout}, whose values use {used} scales")
    return layout.rows * layout.cols


def ranges(cnp.ndarray x, qk_layout layout, cnp.ndarray low, cnp.ndarray high):
    cdef qk_status status
    expect(x, cnp.NPY_FLOAT32, size_of(layout), "x")
    expect_result(low, cnp.NPY_FLOAT32, layout.scales, "low")
    expect_result(high, cnp.NPY_FLOAT32, layout.scales, "high")
    with nogil:
        status = qk_ranges(<const float *>data(x), &layout, <float *>data(low), <float *>data(high))
    check(status)


cdef int expect_parameters(qk_layout layout, cnp.ndarray scale, cnp.ndarray zero_point, bint are_results) except -1:
    expect(scale, cnp.NPY_FLOAT32, layout.scales, "scale")
    expect(zero_point, cnp.NPY_INT32, layout.scales, "zero_point")
    if are_results and not (cnp.PyArray_ISWRITEABLE(scale) and cnp.PyArray_ISWRITEABLE(zero_point)):
        raise ValueError("scale, zero_point: are read-only")


def qparams_of_ranges(cnp.ndarray low, cnp.ndarray high, qk_qtype qtype, qk_scheme scheme, cnp.ndarray scale,
                      cnp.ndarray zero_point):
    """All of one size."""
    cdef qk_status status
    cdef size_t count = cnp.PyArray_SIZE(low)
    expect(low, cnp.NPY_FLOAT32, count, "low")
    expect(high, cnp.NPY_FLOAT32, count, "high")
    expect_result(scale, cnp.NPY_FLOAT32, count, "scale")
    expect_result(zero_point, cnp.NPY_INT32, count, "zero_point")
    with nogil:
        status = qk_qparams_of_ranges(<const float *>data(low), <const float *>data(high), count, qtype, scheme,
                                      <float *>data(scale), <int32_t *>data(zero_point))
    check(status)


def choose_qparams(cnp.ndarray x, qk_layout layout, qk_qtype qtype, qk_scheme scheme,
                   cnp.ndarray scale, cnp.ndarray zero_point):
    cdef qk_status status
    expect(x, cnp.NPY_FLOAT32, size_of(layout), "x")
    expect_parameters(layout, scale, zero_point, True)
    with nogil:
        status = qk_choose_qparams(<const float *>data(x), &layout, qtype, scheme,
                                   <float *>data(scale), <int32_t *>data(zero_point))
    check(status)


def quantize(cnp.ndarray x, qk_layout layout, qk_qtype qtype, cnp.ndarray scale, cnp.ndarray zero_point,
             cnp.ndarray q):
    cdef qk_status status
    expect(x, cnp.NPY_FLOAT32, size_of(layout), "x")
    expect_parameters(layout, scale, zero_point, False)
    expect_result(q, cnp.NPY_UINT8, size_of(layout), "q")
    with nogil:
        status = qk_quantize(<const float *>data(x), &layout, qtype, <const float *>data(scale),
                             <const int32_t *>data(zero_point), <uint8_t *>data(q))
    check(status)


def dequantize(cnp.ndarray q, qk_layout layout, qk_qtype qtype, cnp.ndarray scale, cnp.ndarray zero_point,
               cnp.ndarray x):
    cdef qk_status status
    expect(q, cnp.NPY_UINT8, size_of(layout), "q")
    expect_parameters(layout, scale, zero_point, False)
    expect_result(x, cnp.NPY_FLOAT32, size_of(layout), "x")
    with nogil:
        status = qk_dequantize(<const uint8_t *>data(q), &layout, qtype, <const float *>data(scale),
                               <const int32_t *>data(zero_point), <float *>data(x))
    check(status)


def fake_quantize(cnp.ndarray x, qk_layout layout, qk_qtype qtype, cnp.ndarray scale, cnp.ndarray zero_point,
                  cnp.ndarray y):
    cdef qk_status status
    expect(x, cnp.NPY_FLOAT32, size_of(layout), "x")
    expect_parameters(layout, scale, zero_point, False)
    expect_result(y, cnp.NPY_FLOAT32, size_of(layout), "y")
    with nogil:
        status = qk_fake_quantize(<const float *>data(x), &layout, qtype, <const float *>data(scale),
                                  <const int32_t *>data(zero_point), <float *>data(y))
    check(status)


def fake_quantize_grad(cnp.ndarray dy, cnp.ndarray x, qk_layout layout, qk_qtype qtype, cnp.ndarray scale,
                       cnp.ndarray zero_point, cnp.ndarray dx, cnp.ndarray dscale, cnp.ndarray dclip):
    """dscale, dclip: float64 of the shape of scale, or both None."""
    cdef qk_status status
    expect(dy, cnp.NPY_FLOAT32, size_of(layout), "dy")
    expect(x, cnp.NPY_FLOAT32, size_of(layout), "x")
    expect_parameters(layout, scale, zero_point, False)
    expect_result(dx, cnp.NPY_FLOAT32, size_of(layout), "dx")
    if dscale is not None or dclip is not None:
        expect_result(dscale, cnp.NPY_FLOAT64, layout.scales, "dscale")
        expect_result(dclip, cnp.NPY_FLOAT64, layout.scales, "dclip")
    with nogil:
        status = qk_fake_quantize_grad(<const float *>data(dy), <const float *>data(x), &layout, qtype,
                                       <const float *>data(scale), <const int32_t *>data(zero_point),
                                       <float *>data(dx), <double *>data(dscale), <double *>data(dclip))
    check(status)


def dynamic_quantize(cnp.ndarray x, qk_layout layout, qk_qtype qtype, qk_scheme scheme, cnp.ndarray q,
                     cnp.ndarray scale, cnp.ndarray zero_point):
    cdef qk_status status
    expect(x, cnp.NPY_FLOAT32, size_of(layout), "x")
    expect_parameters(layout, scale, zero_point, True)
    expect_result(q, cnp.NPY_UINT8, size_of(layout), "q")
    with nogil:
        status = qk_dynamic_quantize(<const float *>data(x), &layout, qtype, scheme, <uint8_t *>data(q),
                                     <float *>data(scale), <int32_t *>data(zero_point))
    check(status)


def energy(cnp.ndarray x):
    """The sum of the squares of a float32 array, C-contiguous, as float64; the same on every processor."""
    cdef size_t n = cnp.PyArray_SIZE(x)
    cdef double result
    cdef qk_status status
    expect(x, cnp.NPY_FLOAT32, n, "x")
    with nogil:
        status = qk_energy(<const float *>data(x), n, &result)
    check(status)
    return result


# -------------------------------------------------------------------------------------------------- packing

cdef size_t packed_bytes(size_t n, int bits) except? 0:
    """Of n values."""
    if bits not in (1, 2, 4):
        raise ValueError(f"bits: got {bits}, takes 1, 2 or 4")
    return n // 8 * bits + (n % 8 * bits + 7) // 8


def pack_bits(cnp.ndarray q, size_t rows, size_t n, int bits, bint is_signed, bint high_first, cnp.ndarray p):
    cdef qk_status status
    expect(q, cnp.NPY_UINT8, rows * n, "q")
    expect_result(p, cnp.NPY_UINT8, rows * packed_bytes(n, bits), "p")
    with nogil:
        status = qk_pack_bits(<const uint8_t *>data(q), rows, n, bits, is_signed, high_first, <uint8_t *>data(p))
    check(status, "q")


def unpack_bits(cnp.ndarray p, size_t rows, size_t n, int bits, bint is_signed, bint high_first, cnp.ndarray q):
    expect(p, cnp.NPY_UINT8, rows * packed_bytes(n, bits), "p")
    expect_result(q, cnp.NPY_UINT8, rows * n, "q")
    cdef qk_status status
    with nogil:
        status = qk_unpack_bits(<const uint8_t *>data(p), rows, n, bits, is_signed, high_first, <uint8_t *>data(q))
    check(status)


include "_core_gemm.pxi"
include "_core_binary.pxi"
include "_core_linear.pxi"
include "_core_hadamard.pxi"
include "_core_trellis.pxi"
