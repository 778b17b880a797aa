"""The libraries that take part, one file each, and the machine's limits."""

from .machine import Bandwidth, Peak
from .numkong import NumKong
from .numpy import NumPy
from .onnxruntime import NearestInt2, NearestInt4, OnnxRuntime
from .qkernels import Int8Gemm, Qkernels
from .torch import X86, BFloat16, IntMM, OneDNN

PEERS = {
    peer.name: peer for peer in (Qkernels, Peak, Bandwidth, OnnxRuntime, NearestInt4, NearestInt2, OneDNN, X86, IntMM,
                                 BFloat16, NumKong, NumPy, Int8Gemm)
}
OTHERS = [name for name in PEERS if name not in (Qkernels.name, Peak.name, Bandwidth.name)]
