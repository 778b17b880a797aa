# Weights in low bits, and linear layers with them: included by _core.pyx, called by weights.py.


def weight_layout():
    """The layout that the selected ISA's kernel dictates: what `PackedWeight` packs, and alone multiplies."""
    return qk_own_weight_layout()


def weight_layouts():
    """The layout of each ISA, built or not, by name."""
    return {qk_isa_name(i).decode(): qk_weight_layout_of_isa(i) for i in range(qk_isa_count())}


cdef qk_weight_layout given_weight_layout(layout) except *:
    try:
        return layout
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"layout: got {layout!r}, takes one as {qk_own_weight_layout()}") from None


cdef qk_weight shape_of(size_t n, size_t k, group_size, qk_codes coding, int window, int scale_bytes,
                        bint row_tables) except *:
    """A weight without its arrays."""
    cdef qk_weight weight
    if group_size and group_size % 32:
        raise ValueError(f"group_size: got {group_size}, takes a multiple of 32")
    if not 0 <= <int>coding < QK_CODES_COUNT or not 0 <= window <= 16 or scale_bytes not in (2, 4):
        raise ValueError(f"codes: got coding {<int>coding}, a window of {window} and scales of {scale_bytes} bytes")
    weight.n, weight.k, weight.group, weight.coding, weight.window = n, k, group_size or 0, coding, window
    weight.scale_bytes, weight.row_tables = scale_bytes, row_tables
    weight.codes = weight.zero_points = NULL
    weight.levels, weight.scales = NULL, NULL
    return weight


cdef size_t groups_of(qk_weight weight) noexcept:
    """Of a row."""
    return (weight.k + weight.group - 1) // weight.group if weight.group else 1


cdef size_t row_bytes(qk_weight weight) noexcept:
    """Of a row of codes."""
    cdef size_t block = qk_weight_block(weight.k, weight.group), blocks = weight.k // block + (weight.k % block != 0)
    if weight.coding < QK_CODES_TRELLIS2:
        return weight.k
    return blocks * block * (2 + (<int>weight.coding - QK_CODES_TRELLIS2) % 3) // 8


cdef size_t levels_of(qk_weight weight) noexcept:
    """Of a table for all rows, or of a trellis."""
    return 16 if weight.coding == QK_CODES_TABLE else 64 if QK_CODES_TRELLIS2 <= weight.coding < QK_CODES_FINE2 else 0


cdef size_t packed_size(qk_weight weight, qk_weight_layout layout, str name) except? 0:
    """The bytes of a weight in some layout; name: of the argument that makes it too large."""
    cdef size_t size = 0
    cdef qk_status status = qk_packed_weight_size(&weight, layout, &size)
    if status == QK_FOREIGN_LAYOUT:
        raise ValueError(f"layout: got {layout}, which panels of this weight cannot have")
    check(status, name)
    return size


cdef const uint8_t *any_bytes = b""  # for arrays that only count as there


cdef class PackedWeight:
    """The codes, scales and zero points of a weight [N, K] in the layout of a kernel, by default the selected ISA's.

    Pickles hold the plain arrays, so they load on any machine and are packed there for its ISA.

    Attributes
    ----------
    shape : (int, int)
        (N, K).
    nbytes : int
        Bytes of the packed form, padding included.
    memory : uint8 ndarray
        [nbytes], aligned to 64: the packed form, which may lie in a mapped file.
    layout : dict
        See `weight_layout`.
    isa : str
        That was selected when it was packed or taken from a file.
    """

    cdef readonly tuple shape
    cdef readonly dict layout
    cdef readonly str isa
    cdef readonly cnp.ndarray memory
    cdef qk_weight weight  # without its pointers
    cdef qk_packed_weight header  # of the memory, which may change where it lies in a file
    cdef bint has_zero_points
    cdef tuple codes_shape
    cdef cnp.ndarray levels

    def __init__(self, cnp.ndarray codes, cnp.ndarray scales, cnp.ndarray zero_points, qk_codes coding, group_size,
                 cnp.ndarray levels=None, k=None, int window=0, layout=None):
        """codes uint8 [N, K], or [N, bytes of the stream] of a trellis with its k; scales float16 or float32 [N, G];
        zero_points uint8 [N, G] or None; levels int8 [16], [N, 16] or [64] where the coding has them; all C-contiguous.
        layout as `weight_layout` gives it."""
        cdef qk_weight weight
        cdef qk_weight_layout own = qk_own_weight_layout() if layout is None else given_weight_layout(layout)
        cdef qk_status status
        if codes.ndim != 2 or cnp.PyArray_TYPE(codes) != cnp.NPY_UINT8:
            raise ValueError(f"codes: got {codes.ndim} dimension(s) of {(<object>codes).dtype}, takes uint8 [N, K]")
        weight = shape_of(codes.shape[0], codes.shape[1] if k is None else k, group_size, coding, window,
                          cnp.PyArray_ITEMSIZE(scales), levels is not None and levels.ndim == 2)
        expect(codes, cnp.NPY_UINT8, weight.n * row_bytes(weight), "codes")
        expect(scales, cnp.NPY_FLOAT16 if weight.scale_bytes == 2 else cnp.NPY_FLOAT32, weight.n * groups_of(weight),
               "scales")
        if zero_points is not None:
            expect(zero_points, cnp.NPY_UINT8, weight.n * groups_of(weight), "zero_points")
        if levels is not None:
            expect(levels, cnp.NPY_INT8, 16 * weight.n if weight.row_tables else levels_of(weight), "levels")
        elif levels_of(weight):
            raise ValueError("levels: needed for these codes")
        self.describe(weight, own, codes.shape[1], levels, zero_points is not None)
        weight.codes = <const uint8_t *>data(codes)
        weight.levels = <const int8_t *>data(levels)
        weight.scales = data(scales)
        weight.zero_points = <const uint8_t *>data(zero_points)
        self.memory = aligned_memory(packed_size(weight, own, "codes"))
        with nogil:
            status = qk_pack_weight(&weight, own, &self.header, data(self.memory))
        check(status, "codes", "zero_points", "scales")
        cnp.PyArray_CLEARFLAGS(self.memory, cnp.NPY_ARRAY_WRITEABLE)

    @staticmethod
    def of_memory(memory, size_t n, size_t k, size_t columns, qk_codes coding, group_size,
                  cnp.ndarray levels, int window, int scale_bytes, bint has_zero_points, layout):
        """A weight whose packed form lies in memory, uint8, aligned to 64; None if that is none of this shape.
        columns: of the codes."""
        cdef PackedWeight packed = PackedWeight.__new__(PackedWeight)
        cdef qk_weight weight = shape_of(n, k, group_size, coding, window, scale_bytes,
                                         levels is not None and levels.ndim == 2)
        cdef qk_weight_layout panels = given_weight_layout(layout)
        check_memory(memory)
        packed.describe(weight, panels, columns, levels, has_zero_points)
        packed.memory = memory
        weight.zero_points = any_bytes if has_zero_points else NULL
        if qk_check_packed_weight(&weight, panels, data(memory), packed.memory.shape[0], &packed.header) != QK_OK:
            return None
        return packed

    cdef int describe(self, qk_weight weight, qk_weight_layout layout, size_t columns, cnp.ndarray levels,
                      bint has_zero_points) except -1:
        self.shape, self.codes_shape = (weight.n, weight.k), (weight.n, columns)
        self.weight, self.layout, self.levels = weight, layout, levels
        self.has_zero_points, self.isa = has_zero_points, selected_isa()

    @property
    def nbytes(self):
        return (<object>self.memory).nbytes

    def size_of(self, size_t n, size_t k, layout):
        """The bytes of a weight like this one of another shape, in some layout."""
        cdef qk_weight weight = self.weight
        weight.n, weight.k = n, k
        weight.zero_points = any_bytes if self.has_zero_points else NULL
        return packed_size(weight, given_weight_layout(layout), "shape")

    @property
    def scale_dtype(self):
        return "float16" if self.weight.scale_bytes == 2 else "float32"

    def unpack(self):
        """(codes, scales, zero_points), as they were packed; with K = 0, which stores none, scales of 1."""
        cdef size_t groups = groups_of(self.weight)
        cdef cnp.ndarray codes = np.empty(self.codes_shape, np.uint8), zero_points = None
        cdef cnp.ndarray scales = np.ones((self.weight.n, groups), np.float16 if self.weight.scale_bytes == 2 else np.float32)
        if self.has_zero_points:
            zero_points = np.zeros((self.weight.n, groups), np.uint8)
        cdef qk_status status
        with nogil:
            status = qk_unpack_weight(&self.header, data(self.memory), <uint8_t *>data(codes), data(scales),
                                      <uint8_t *>data(zero_points))
        check(status)
        return codes, scales, zero_points

    def __reduce__(self):
        return PackedWeight, (*self.unpack(), self.weight.coding, self.weight.group or None, self.levels, self.shape[1],
                              self.weight.window)


def weight_block(size_t k, group_size):
    """The values along k that are summed as integers."""
    if group_size and group_size % 32:
        raise ValueError(f"group_size: got {group_size}, takes a multiple of 32")
    return qk_weight_block(k, group_size or 0)


def linear(cnp.ndarray x, PackedWeight weight, cnp.ndarray input_scales, seed, cnp.ndarray bias, qk_rows rows,
           qk_activation activation, float low, float high, cnp.ndarray out):
    """x float32 [M, K] to out float32 [M, N], both C-contiguous; input_scales float32 [K] or None, seed an int or None."""
    cdef qk_linear_args args
    cdef uint64_t state = 0 if seed is None else seed
    cdef qk_status status
    cdef size_t m = x.shape[0] if x.ndim == 2 else 0
    expect(x, cnp.NPY_FLOAT32, m * weight.weight.k, "x")
    expect_result(out, cnp.NPY_FLOAT32, m * weight.weight.n, "out")
    if input_scales is not None:
        expect(input_scales, cnp.NPY_FLOAT32, weight.weight.k, "input_scales")
    if bias is not None:
        expect(bias, cnp.NPY_FLOAT32, weight.weight.n, "bias")
    args.x, args.m = <const float *>data(x), x.shape[0]
    args.weight, args.header = data(weight.memory), weight.header
    args.rows, args.bias = rows, <const float *>data(bias)
    args.input_scales, args.seed = <const float *>data(input_scales), NULL if seed is None else &state
    args.activation, args.low, args.high = activation, low, high
    args.out = <float *>data(out)
    with nogil:
        status = qk_linear(&args)
    if status == QK_FOREIGN_LAYOUT:
        raise ValueError("qw: packed for another ISA than the selected one; make it anew, or from its state")
    check(status)
