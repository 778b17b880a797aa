# Encoding for trellises: included by _core.pyx, called by trellis.py.


def encode_trellis(cnp.ndarray x, cnp.ndarray levels, int bits):
    """x float32 [R, T] in level units to the words uint8 [R, T * bits / 8]; levels int8 [2**window], T a multiple of
    8."""
    cdef size_t rows = x.shape[0] if x.ndim == 2 else 0, steps = x.shape[1] if x.ndim == 2 else 0
    cdef int window = (<object>levels).size.bit_length() - 1
    if not (2 <= bits <= 4 and bits < window <= 16):
        raise ValueError(f"levels: got {(<object>levels).size} for {bits} bits")
    if steps * bits % 8 or steps * bits < <size_t>window:
        raise ValueError(f"x: got shape {(<object>x).shape}, takes rows of whole bytes that hold a window")
    expect(x, cnp.NPY_FLOAT32, rows * steps, "x")
    expect(levels, cnp.NPY_INT8, <size_t>1 << window, "levels")
    cdef cnp.ndarray stream = np.empty((rows, steps * bits // 8), np.uint8)
    cdef qk_status status
    with nogil:
        status = qk_encode_trellis(<const float *>data(x), rows, steps, <const int8_t *>data(levels), bits, window,
                                   <uint8_t *>data(stream))
    check(status)
    return stream
