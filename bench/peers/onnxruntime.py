"""ONNX Runtime: a model of one node, B a constant, which the session packs."""

import numpy as np

import qkernels

from ..int8 import OUT_ZERO_POINT
from ..lowbit import LowBitProblem
from .peer import Peer


class OnnxRuntime(Peer):
    name = "onnxruntime"
    requires = ("onnxruntime", "onnx")

    def _product(self, p, op, a, out_dtype, constants, domain="", **attributes):
        """Compute op(a, *constants) into the same array each time."""
        import onnxruntime
        from onnx import helper, numpy_helper

        def value(name, dtype, shape):
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

        names = [f"c{i}" for i in range(len(constants))]
        graph = helper.make_graph(
            [helper.make_node(op, ["a", *names], ["y"], domain=domain, **attributes)], op,
            [value("a", a.dtype, a.shape)], [value("y", out_dtype, (p.m, p.n))],
            [numpy_helper.from_array(np.asarray(c), name) for c, name in zip(constants, names, strict=True)])
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        out = np.empty((p.m, p.n), out_dtype)
        binding = session.io_binding()
        binding.bind_ortvalue_input("a", onnxruntime.OrtValue.ortvalue_from_numpy(a))
        binding.bind_ortvalue_output("y", onnxruntime.OrtValue.ortvalue_from_numpy(out))

        def call():
            session.run_with_iobinding(binding)
            return out

        return call

    def int32(self, p):
        constants = [p.b_s8, np.uint8(p.a_zero_point)]
        return self._product(p, "MatMulInteger", p.a_u8, np.int32, constants)

    def float32(self, p):
        constants = [p.b_s8, p.a_scale, p.b_scales, np.uint8(p.a_zero_point)]
        return self._product(p, "MatMulIntegerToFloat", p.a_u8, np.float32, constants, "com.microsoft")

    def int8(self, p):
        constants = [p.a_scale, np.uint8(p.a_zero_point), p.b_s8, p.b_scales, np.zeros(p.n, np.int8), p.out_scale,
                     np.uint8(OUT_ZERO_POINT)]
        return self._product(p, "QLinearMatMul", p.a_u8, np.uint8, constants)

    def dynamic(self, p):
        return self._product(p, "DynamicQuantizeMatMul", p.x, np.float32, [p.b_s8, p.b_scales], "com.microsoft")

    def int4(self, p):
        """Accuracy level 4 quantizes the activations to int8, 0 leaves them as they are."""
        codes = np.pad(p.codes, ((0, 0), (0, -p.k % p.group_size)))
        constants = [self._packed(codes, p.bits).reshape(p.n, p.groups, -1), p.scales.astype(np.float32)]
        if not p.symmetric:
            constants.append(self._packed(p.zero_points, p.bits))
        return self._product(p, "MatMulNBits", p.x, np.float32, constants, "com.microsoft", K=p.k, N=p.n, bits=p.bits,
                             block_size=p.group_size, accuracy_level=0 if p.activations == "float32" else 4)

    int4_float32 = int4_asymmetric = int8_grouped = int2 = int4

    def nf4(self, p):
        """Blocks of the flat codes, high nibbles first; levels are floats up to 1."""
        constants = [qkernels.pack(p.codes, 4, order="high_first").reshape(-1),
                     (127 * p.scales.astype(np.float32)).reshape(-1)]
        return self._product(p, "MatMulBnb4", p.x, np.float32, constants, "com.microsoft", K=p.k, N=p.n,
                             block_size=p.group_size, quant_type=1)

    def _packed(self, codes, bits):
        return codes if bits == 8 else qkernels.pack(codes, bits)


class Nearest(Peer):
    """MatMulNBits on a product of the suite lowbit, of the same shape: the nearest that onnxruntime has."""

    requires = OnnxRuntime.requires

    def _nearest(self, p):
        self.problem = LowBitProblem(self.product, (p.m, p.n, p.k))
        return OnnxRuntime(self.threads).prepare(self.problem)

    def check(self, problem, result):
        self.problem.check(result)


class NearestInt4(Nearest):
    name, product = "ort-int4", "int4"

    nf4 = codebook4 = binary = ternary = trellis2 = trellis3 = trellis4 = Nearest._nearest


class NearestInt2(Nearest):
    name, product = "ort-int2", "int2"

    binary = ternary = trellis2 = Nearest._nearest
