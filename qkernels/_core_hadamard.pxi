# The randomized Hadamard transform: included by _core.pyx, called by hadamard.py.


def hadamard(cnp.ndarray x, size_t k, seed, bint inverse, cnp.ndarray y):
    """x float32 [..., k] to y of its shape; seed: an int of 64 bits, or None for no signs."""
    cdef uint64_t state = 0 if seed is None else seed
    cdef const uint64_t *signs = NULL if seed is None else &state
    cdef size_t rows = cnp.PyArray_SIZE(x) // k if k else 0
    cdef qk_status status
    expect(x, cnp.NPY_FLOAT32, rows * k, "x")
    expect_result(y, cnp.NPY_FLOAT32, rows * k, "y")
    with nogil:
        status = qk_hadamard(<const float *>data(x), rows, k, signs, inverse, <float *>data(y))
    check(status)
