# The integer product: included by _core.pyx, called by gemm.py.
#
# An argument that has the form that C takes passes as it is, so that a small product costs little more than its
# arithmetic; the converters of _arguments.py bring any other into that form, or refuse it.

cdef extern from "Python.h":
    long PyLong_AsLongAndOverflow(object x, int *overflow) except? -1

cdef cnp.dtype INT32 = np.dtype(np.int32), FLOAT32 = np.dtype(np.float32)


# ------------------------------------------------------------------------------------------------ arguments

cdef inline bint as_int32(x, int32_t *value) except -1:
    """Whether x is a Python int, or a zero point as quantizers give it, of 32 bits; it then goes to value."""
    cdef int overflow = 0
    cdef long whole
    if type(x) is not int and not isinstance(x, (np.int8, np.uint8)):
        return False
    whole = PyLong_AsLongAndOverflow(x, &overflow)
    value[0] = <int32_t>whole
    return overflow == 0 and value[0] == whole


cdef inline bint is_float(x):
    """Whether x is a number that C rounds to float32 as NumPy does."""
    return isinstance(x, (float, np.float32))


cdef inline bint is_vector(x, int type_number, Py_ssize_t length) noexcept:
    """Whether x is a contiguous, aligned, native [length]."""
    return (isinstance(x, cnp.ndarray) and cnp.PyArray_TYPE(x) == type_number and cnp.PyArray_NDIM(x) == 1
            and cnp.PyArray_DIM(x, 0) == length and cnp.PyArray_ISCARRAY_RO(x))


cdef inline cnp.ndarray new_vector(Py_ssize_t length, int type_number):
    cdef cnp.npy_intp shape = length
    return cnp.PyArray_EMPTY(1, &shape, type_number, 0)


cdef cnp.ndarray zero_points(x, str name, Py_ssize_t length):
    """int32, one or `length`."""
    cdef int32_t value
    if is_vector(x, cnp.NPY_INT32, length):
        return x
    if is_vector(x, cnp.NPY_INT8, length) or is_vector(x, cnp.NPY_UINT8, length):
        return cnp.PyArray_Cast(x, cnp.NPY_INT32)
    if not as_int32(x, &value):
        return arguments.one_or_each(x, name, length, arguments.integer_parameter)
    one = new_vector(1, cnp.NPY_INT32)
    (<int32_t *>data(one))[0] = value
    return one


cdef cnp.ndarray column_scales(x, Py_ssize_t n):
    """float32, one or [n]."""
    if is_vector(x, cnp.NPY_FLOAT32, n):
        return x
    if not is_float(x):
        return arguments.one_or_each(x, "scales", n, arguments.float_parameter)
    one = new_vector(1, cnp.NPY_FLOAT32)
    (<float *>data(one))[0] = x
    return one


cdef inline cnp.ndarray bytes_of(x, str name):
    """int8 or uint8, any shape and strides."""
    if isinstance(x, cnp.ndarray) and cnp.PyArray_TYPE(x) in (cnp.NPY_INT8, cnp.NPY_UINT8):
        return x
    return arguments.byte_array(x, name)


cdef qk_matrix matrix_of(cnp.ndarray array):
    """The first matrix of an int8 or uint8 array [..., rows, cols]."""
    cdef int last = cnp.PyArray_NDIM(array) - 1
    cdef qk_matrix matrix
    matrix.data = <const uint8_t *>cnp.PyArray_DATA(array)
    matrix.rows, matrix.cols = array.shape[last - 1], array.shape[last]
    matrix.row_stride, matrix.col_stride = array.strides[last - 1], array.strides[last]
    matrix.is_signed = cnp.PyArray_TYPE(array) == cnp.NPY_INT8
    return matrix


@cython.cdivision(True)
cdef ptrdiff_t offset_of(cnp.ndarray array, size_t index) noexcept nogil:
    """Distance in bytes from the first matrix of an array [..., rows, cols] to another, counted in C order."""
    cdef ptrdiff_t offset = 0
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(array) - 3, -1, -1):
        if index == 0:
            break
        offset += <ptrdiff_t>(index % array.shape[axis]) * array.strides[axis]
        index //= array.shape[axis]
    return offset


# ------------------------------------------------------------------------------------------------- packed B

cpdef cnp.ndarray aligned_memory(size_t size):
    """Zeros that start at a cache line: packed forms have gaps, which go to files with them."""
    cdef cnp.npy_intp whole = size + 63
    cdef cnp.ndarray memory = cnp.PyArray_ZEROS(1, &whole, cnp.NPY_UINT8, 0)
    cdef size_t start = -<size_t>data(memory) % 64
    return memory[start:start + size]


cdef int check_memory(memory) except -1:
    """Refuse what cannot hold a packed form."""
    if not isinstance(memory, cnp.ndarray):
        raise TypeError(f"memory: got {type(memory).__name__}, takes a NumPy array")
    if cnp.PyArray_TYPE(memory) != cnp.NPY_UINT8 or cnp.PyArray_NDIM(memory) != 1:
        raise ValueError(f"memory: got {memory.dtype} of shape {memory.shape}, takes uint8 [bytes]")
    if not cnp.PyArray_IS_C_CONTIGUOUS(memory):
        raise ValueError(f"memory: got strides of {memory.strides[0]} bytes, takes bytes that follow each other")
    if <size_t>data(memory) % 64:
        raise ValueError("memory: starts at an address that is no multiple of 64")


cdef cnp.ndarray packed_memory(size_t k, size_t n, qk_b_layout layout):
    """Memory for a packed [k, n]."""
    cdef size_t size = 0
    cdef qk_status status = qk_packed_b_size(k, n, layout, &size)
    if status == QK_FOREIGN_LAYOUT:
        raise ValueError(f"layout: got {layout}, which panels cannot have")
    check(status, "b_q")
    return aligned_memory(size)


def b_layout():
    """The layout that the selected ISA's kernel dictates: what `PackedB` packs, and alone products take."""
    return qk_own_b_layout()


def b_layouts():
    """The layout of each ISA, built or not, by name."""
    return {qk_isa_name(i).decode(): qk_b_layout_of_isa(i) for i in range(qk_isa_count())}


cdef qk_b_layout given_b_layout(layout) except *:
    try:
        return layout
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"layout: got {layout!r}, takes one as {qk_own_b_layout()}") from None


cdef class PackedB:
    """A right-hand side [K, N] in the layout of a kernel, by default the selected ISA's; made by `pack_b`.

    Pickles hold the plain integers, so they load on any machine and are packed there for its ISA.

    Attributes
    ----------
    shape : (int, int)
        (K, N).
    dtype : numpy.dtype
        int8 or uint8.
    zero_point : int32 ndarray
        [N].
    nbytes : int
        Bytes of the packed form, padding and column sums included.
    memory : uint8 ndarray
        [nbytes], aligned to 64: the packed form, which may lie in a mapped file.
    layout : dict
        See `b_layout`.
    isa : str
        That was selected when it was packed or taken from a file.
    """

    cdef readonly tuple shape
    cdef readonly cnp.dtype dtype
    cdef readonly cnp.ndarray memory
    cdef readonly dict layout
    cdef readonly str isa
    cdef qk_packed_b header  # of the memory, which may change where it lies in a file

    def __init__(self, b_q, b_zero_point, transpose=False, layout=None):
        """As `pack_b`; layout as `b_layout` gives it."""
        cdef cnp.ndarray b = bytes_of(b_q, "b_q"), zero_point
        cdef qk_b_layout own = qk_own_b_layout() if layout is None else given_b_layout(layout)
        cdef qk_matrix matrix
        cdef qk_status status
        if b.ndim != 2:
            raise ValueError(f"b_q: got {b.ndim} dimensions, pack_b takes 2")
        if transpose:
            b = b.T
        matrix = matrix_of(b)
        zero_point = zero_points(b_zero_point, "b_zero_point", matrix.cols)
        self.shape = matrix.rows, matrix.cols
        self.dtype = (<object>b).dtype
        self.layout, self.isa = own, selected_isa()
        self.memory = packed_memory(matrix.rows, matrix.cols, own)
        with nogil:
            status = qk_pack_b(&matrix, <const int32_t *>data(zero_point), zero_point.shape[0], own, &self.header,
                               data(self.memory))
        check(status, "b_q")
        cnp.PyArray_CLEARFLAGS(self.memory, cnp.NPY_ARRAY_WRITEABLE)

    @staticmethod
    def of_memory(memory, size_t k, size_t n, cnp.dtype dtype, layout):
        """A [k, n] whose packed form lies in memory, uint8, aligned to 64; None if that is none of this shape."""
        cdef PackedB packed = PackedB.__new__(PackedB)
        cdef qk_b_layout panels = given_b_layout(layout)
        check_memory(memory)
        packed.shape, packed.dtype, packed.memory = (k, n), dtype, memory
        packed.layout, packed.isa = panels, selected_isa()
        if qk_check_packed_b(k, n, dtype.type_num == cnp.NPY_INT8, panels, data(memory), packed.memory.shape[0],
                             &packed.header) != QK_OK:
            return None
        return packed

    @property
    def nbytes(self):
        return (<object>self.memory).nbytes

    @property
    def zero_point(self):
        return self._unpacked()[1]

    def unpack(self):
        """The original integers.

        Returns
        -------
        int8 or uint8 ndarray
            [K, N], C-contiguous.
        """
        return self._unpacked()[0]

    def repacked(self, layout):
        """The same in another layout than that of the selected ISA, for a file.

        Parameters
        ----------
        layout : dict
            As ``_core.b_layout()`` gives it.

        Returns
        -------
        PackedB
        """
        return PackedB(*self._unpacked(), layout=layout)

    def _unpacked(self):
        cdef cnp.ndarray b = np.empty(self.shape, self.dtype)
        cdef cnp.ndarray zero_point = np.empty(self.shape[1], np.int32)
        cdef qk_status status
        with nogil:
            status = qk_unpack_b(&self.header, data(self.memory), <uint8_t *>data(b), <int32_t *>data(zero_point))
        check(status)
        return b, zero_point

    def __reduce__(self):
        return PackedB, self._unpacked()

    def __repr__(self):
        return f"<PackedB {self.shape[0]}x{self.shape[1]} {self.dtype} for {self.isa}, {self.nbytes} bytes>"


# -------------------------------------------------------------------------------------------------- product

@cython.final
@cython.internal
cdef class Product:
    """One call of int8_gemm: the struct for C, and the arrays whose memory it points to."""

    cdef qk_gemm_args args
    cdef cnp.ndarray a, b, a_zero_point, b_zero_point, scales, row_scales, bias
    cdef PackedB packed  # or None: then b and b_zero_point are what to pack
    cdef tuple batch
    cdef Py_ssize_t m, n, k
    cdef cnp.dtype dtype

    cdef int set_operands(self, a_q, b_q, b_zero_point) except -1:
        cdef tuple b_shape
        self.a = bytes_of(a_q, "a_q")
        if self.a.ndim < 2:
            raise ValueError(f"a_q: got {self.a.ndim} dimension(s), takes [..., M, K]")
        if isinstance(b_q, PackedB):
            if (type(b_zero_point) is not int and np.ndim(b_zero_point)) or b_zero_point != 0:
                raise ValueError("b_zero_point: a PackedB carries its own; give it to pack_b")
            self.packed = b_q
            b_shape = self.packed.shape
        else:
            self.b = bytes_of(b_q, "b_q")
            b_shape = (<object>self.b).shape
            if len(b_shape) < 2:
                raise ValueError(f"b_q: got {len(b_shape)} dimension(s), takes [..., K, N]")
            self.b_zero_point = zero_points(b_zero_point, "b_zero_point", b_shape[-1])
        self.args.a = matrix_of(self.a)
        self.m, self.k, self.n = self.args.a.rows, self.args.a.cols, b_shape[-1]
        if b_shape[-2] != self.k:
            raise ValueError(f"b_q: got K = {b_shape[-2]} (shape {b_shape}), a_q has K = {self.k} "
                             f"(shape {(<object>self.a).shape})")
        self.batch = () if self.a.ndim == 2 and len(b_shape) == 2 else self.broadcast_batch(b_shape[:-2])

    cdef tuple broadcast_batch(self, tuple b_batch):
        """The result's leading dimensions, which an operand that has some at all then has, too."""
        cdef tuple a_batch = (<object>self.a).shape[:-2], batch
        try:
            batch = np.broadcast_shapes(a_batch, b_batch)
        except ValueError:
            raise ValueError(f"b_q: leading dimensions {b_batch} do not broadcast with a_q's {a_batch}") from None
        if a_batch:
            self.a = np.broadcast_to(self.a, (*batch, self.m, self.k))
        if b_batch:
            self.b = np.broadcast_to(self.b, (*batch, self.k, self.n))
        return batch

    cdef int set_a_zero_point(self, a_zero_point) except -1:
        self.a_zero_point = zero_points(a_zero_point, "a_zero_point", self.m)
        self.args.a_zero_point = <const int32_t *>data(self.a_zero_point)
        self.args.a_zero_point_count = self.a_zero_point.shape[0]

    cdef int set_output(self, scales, row_scales, activation, out_dtype, out_scale, requant) except -1:
        """The kind of output, when what belongs to other kinds is absent."""
        if out_dtype is None:
            self.dtype = INT32 if scales is None else FLOAT32
        else:
            self.dtype = arguments.gemm_dtype(out_dtype, scales is not None)
        if requant != "float" and requant != "fixed":
            raise ValueError(f"requant: got {requant!r}, takes 'float' or 'fixed'")
        if scales is None and row_scales is not None:
            raise ValueError("row_scales: only applies when scales are given")
        if scales is None and activation is not None:
            raise ValueError("activation: only applies when scales are given")
        if self.dtype.itemsize > 1:
            if out_scale is not None:
                raise ValueError(f"out_scale: only applies to int8 and uint8 output, not to {self.dtype}")
            if requant == "fixed":
                raise ValueError(f"requant: 'fixed' only applies to int8 and uint8 output, not to {self.dtype}")
            self.args.output = QK_OUT_S32 if scales is None else QK_OUT_F32
        else:
            if out_scale is None:
                raise ValueError(f"out_scale: needed for {self.dtype} output")
            self.args.output = QK_OUT_Q8_FIXED if requant == "fixed" else QK_OUT_Q8
            self.args.out_type = (qk_qtype(-128, 127, True) if self.dtype.type_num == cnp.NPY_INT8
                                  else qk_qtype(0, 255, False))

    cdef int set_columns_and_rows(self, scales, row_scales, bias) except -1:
        """What multiplies and shifts the accumulators."""
        if scales is not None:
            self.scales = column_scales(scales, self.n)
            self.args.scales = <const float *>data(self.scales)
            self.args.scales_count = self.scales.shape[0]
        if row_scales is not None:
            self.row_scales = (row_scales if is_vector(row_scales, cnp.NPY_FLOAT32, self.m)
                               else arguments.float_parameter(row_scales, "row_scales", (self.m,)))
            self.args.row_scales = <const float *>data(self.row_scales)
        if bias is not None:
            self.bias = (bias if is_vector(bias, cnp.NPY_INT32, self.n)
                         or (scales is not None and is_vector(bias, cnp.NPY_FLOAT32, self.n))
                         else arguments.gemm_bias(bias, self.n, scales is not None))
            if cnp.PyArray_TYPE(self.bias) == cnp.NPY_INT32:
                self.args.bias_s32 = <const int32_t *>data(self.bias)
            else:
                self.args.bias_f32 = <const float *>data(self.bias)

    cdef int set_range(self, activation, out_scale, out_zero_point) except -1:
        """The clamp, and the step and zero point of quantized output."""
        cdef qk_gemm_args *args = &self.args
        args.clamp_low, args.clamp_high = -INFINITY, INFINITY
        if activation is not None:
            args.clamp_low, args.clamp_high = arguments.clamp_bounds(activation)
        if out_scale is not None:
            args.out_scale = (out_scale if is_float(out_scale)
                              else arguments.float_parameter(out_scale, "out_scale", ()))
        if not as_int32(out_zero_point, &args.out_zero_point) or not (
                args.out_type.qmin <= args.out_zero_point <= args.out_type.qmax):
            args.out_zero_point = arguments.scalar(
                out_zero_point, "out_zero_point", args.out_type.qmin, args.out_type.qmax)
        if args.output == QK_OUT_Q8_FIXED and args.row_scales != NULL:
            raise NotImplementedError("row_scales: not available with requant='fixed'")
        if args.output == QK_OUT_Q8_FIXED and args.bias_f32 != NULL:
            raise NotImplementedError("bias: requant='fixed' takes an int32 bias, in steps of scales")

    cdef size_t count(self) noexcept:
        """How many products to compute; rows of a batch that have everything in common are those of one."""
        cdef size_t products = 1
        for length in self.batch:
            products *= length
        if ((self.b is None or self.b.ndim == 2) and cnp.PyArray_IS_C_CONTIGUOUS(self.a)
                and self.args.a_zero_point_count == 1 and self.row_scales is None):
            self.args.a.rows *= products
            self.args.a.row_stride, self.args.a.col_stride = self.k, 1
            return 1
        if products > 1 and not (self.m and self.n):
            return 1  # checks the values
        return products

    cdef int multiply(self, cnp.ndarray out) except -1:
        """Every product of the batch, into a C-contiguous array."""
        cdef qk_gemm_args *args = &self.args
        cdef cnp.ndarray a = self.a, b = self.b, b_zero_point = self.b_zero_point
        cdef cnp.ndarray memory = None  # of a packed B
        cdef const uint8_t *packed_data = NULL  # what it was packed from
        cdef qk_status status = QK_OK
        cdef size_t count = self.count(), i
        if b is None:
            memory, args.b_header = self.packed.memory, self.packed.header
        else:
            args.plain_b = matrix_of(b)
            args.b_zero_point = <const int32_t *>data(b_zero_point)
            args.b_zero_point_count = b_zero_point.shape[0]
            if count > 1 and offset_of(b, 1) == 0:  # neighbours share their B
                memory = packed_memory(self.k, self.n, qk_own_b_layout())
        args.b = data(memory)
        args.out_row_bytes = self.n * self.dtype.itemsize
        with nogil:
            for i in range(count):
                if b is not None:
                    args.plain_b.data = <const uint8_t *>data(b) + offset_of(b, i)
                    if args.b != NULL and args.plain_b.data != packed_data:
                        status = qk_pack_b(&args.plain_b, args.b_zero_point, args.b_zero_point_count, qk_own_b_layout(),
                                           &args.b_header, data(memory))
                        packed_data = args.plain_b.data
                        if status != QK_OK:
                            break
                args.a.data = <const uint8_t *>data(a) + offset_of(a, i)
                args.out = <char *>data(out) + i * self.m * args.out_row_bytes
                status = qk_int8_gemm(args)
                if status == QK_OK and i % 16 == 15 and qk_interrupted():
                    status = QK_INTERRUPTED
                if status != QK_OK:
                    break
        check(status, "b_q", "a_zero_point", "scales")


def int8_gemm(a_q, b_q, scales, a_zero_point, b_zero_point, row_scales, bias, activation, out_dtype, out_scale,
              out_zero_point, requant, out):
    """int8_gemm of gemm.py; its arguments are checked here, in this order, and all before anything is computed."""
    cdef Product product = Product.__new__(Product)
    cdef Output output = Output.__new__(Output)
    cdef uint64_t callers_mode = qk_set_default_floating_mode()  # for scales that are converted to float32
    try:
        product.set_operands(a_q, b_q, b_zero_point)
        product.set_a_zero_point(a_zero_point)
        product.set_output(scales, row_scales, activation, out_dtype, out_scale, requant)
        product.set_columns_and_rows(scales, row_scales, bias)
        product.set_range(activation, out_scale, out_zero_point)
        output.take(out, product.batch + (product.m, product.n), product.dtype, "a_q",
                    (product.a, product.b, a_zero_point, b_zero_point, scales, row_scales, bias))
        product.multiply(output.buffer)
        return output.done()
    finally:
        qk_restore_floating_mode(callers_mode)


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
    if not cnp.PyArray_ISCARRAY_RO(buffer) or size % QK_READ_BLOCK or <size_t>data(buffer) % 4:
        raise ValueError("buffer: takes whole blocks of aligned words")
    with nogil:
        sum = qk_read_loop(data(buffer), size, rounds)
    return sum
