# Weights in low bits, and linear layers with them: included by _core.pyx, called by weights.py.


cdef class PackedWeight:
    """The codes, scales and zero points of a weight [N, K] in the layout of the selected ISA's kernel.

    Pickles hold the plain arrays, so they load on any machine and are packed there for its ISA.

    Attributes
    ----------
    shape : (int, int)
        (N, K).
    nbytes : int
        Bytes of the packed form, padding included.
    isa : str
        The ISA whose kernel can use it.
    """

    cdef readonly tuple shape
    cdef qk_weight weight  # without its pointers
    cdef bint has_zero_points
    cdef tuple codes_shape
    cdef cnp.ndarray levels
    cdef cnp.ndarray memory

    def __cinit__(self, cnp.ndarray codes, cnp.ndarray scales, cnp.ndarray zero_points, qk_codes coding, group_size,
                  cnp.ndarray levels=None, k=None, int window=0):
        """codes uint8 [N, K], or [N, bytes of the stream] of a trellis with its k; scales float16 or float32 [N, G];
        zero_points uint8 [N, G] or None; levels int8 [16], [N, 16] or [64] where the coding has them; all C-contiguous."""
        cdef qk_weight weight
        cdef qk_status status
        cdef size_t size = 0
        weight.n, weight.k, weight.coding = codes.shape[0], codes.shape[1] if k is None else k, coding
        weight.group, weight.window = group_size or 0, window
        weight.scale_bytes = cnp.PyArray_ITEMSIZE(scales)
        weight.row_tables = levels is not None and levels.ndim == 2
        weight.codes = <const uint8_t *>data(codes)
        weight.levels = <const int8_t *>data(levels)
        weight.scales = data(scales)
        weight.zero_points = <const uint8_t *>data(zero_points)
        self.shape, self.codes_shape = (weight.n, weight.k), (codes.shape[0], codes.shape[1])
        self.weight, self.levels = weight, levels
        self.has_zero_points = zero_points is not None
        check(qk_packed_weight_size(&weight, &size), "codes")
        self.memory = aligned_memory(size)
        with nogil:
            status = qk_pack_weight(&weight, data(self.memory))
        check(status, "codes", "zero_points", "scales")

    @property
    def nbytes(self):
        return (<object>self.memory).nbytes

    @property
    def isa(self):
        return qk_isa_name(qk_packed_weight_isa(data(self.memory))).decode()

    def unpack(self):
        """(codes, scales, zero_points), as they were packed; with K = 0, which stores none, scales of 1."""
        cdef size_t group = self.weight.group, groups = (self.weight.k + group - 1) // group if group else 1
        cdef cnp.ndarray codes = np.empty(self.codes_shape, np.uint8), zero_points = None
        cdef cnp.ndarray scales = np.ones((self.weight.n, groups), np.float16 if self.weight.scale_bytes == 2 else np.float32)
        if self.has_zero_points:
            zero_points = np.zeros((self.weight.n, groups), np.uint8)
        with nogil:
            qk_unpack_weight(data(self.memory), <uint8_t *>data(codes), data(scales), <uint8_t *>data(zero_points))
        return codes, scales, zero_points

    def __reduce__(self):
        return PackedWeight, (*self.unpack(), self.weight.coding, self.weight.group or None, self.levels, self.shape[1],
                              self.weight.window)


def weight_block(size_t k, group_size):
    """The values along k that are summed as integers."""
    return qk_weight_block(k, group_size or 0)


def linear(cnp.ndarray x, PackedWeight weight, cnp.ndarray bias, qk_rows rows, qk_activation activation, float low,
           float high, cnp.ndarray out):
    """x float32 [M, K] to out float32 [M, N], both C-contiguous."""
    cdef qk_linear_args args
    cdef qk_status status
    args.x, args.m = <const float *>data(x), x.shape[0]
    args.weight, args.rows, args.bias = data(weight.memory), rows, <const float *>data(bias)
    args.activation, args.low, args.high = activation, low, high
    args.out = <float *>data(out)
    with nogil:
        status = qk_linear(&args)
    if status == QK_FOREIGN_LAYOUT:
        raise ValueError("qw: packed for another ISA than the selected one; make it anew, or from its state")
    check(status)
