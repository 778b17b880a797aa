# The product of signs: included by _core.pyx, called by binary.py.


def binary_gemm(cnp.ndarray a, cnp.ndarray b, size_t k, cnp.ndarray out):
    """a uint8 [M, bytes] and b uint8 [N, bytes] to out int32 [M, N], all C-contiguous; bytes = ceil(k / 8)."""
    cdef size_t bytes = k // 8 + (k % 8 != 0), m, n
    cdef qk_status status
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError("a_bits, b_bits: take two dimensions")
    m, n = a.shape[0], b.shape[0]
    expect(a, cnp.NPY_UINT8, m * bytes, "a_bits")
    expect(b, cnp.NPY_UINT8, n * bytes, "b_bits")
    expect_result(out, cnp.NPY_INT32, m * n, "out")
    with nogil:
        status = qk_binary_gemm(<const uint8_t *>data(a), m, <const uint8_t *>data(b), n, k, <int32_t *>data(out))
    check(status, "a_bits")
