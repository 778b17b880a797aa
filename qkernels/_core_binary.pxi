# The product of signs: included by _core.pyx, called by binary.py.


def binary_gemm(cnp.ndarray a, cnp.ndarray b, size_t k, cnp.ndarray out):
    """a uint8 [M, bytes] and b uint8 [N, bytes] to out int32 [M, N], all C-contiguous; bytes = ceil(k / 8)."""
    cdef size_t m = a.shape[0], n = b.shape[0]
    cdef qk_status status
    with nogil:
        status = qk_binary_gemm(<const uint8_t *>data(a), m, <const uint8_t *>data(b), n, k, <int32_t *>data(out))
    check(status, "a_bits")
