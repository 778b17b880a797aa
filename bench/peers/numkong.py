"""NumKong's dot products of int8 rows with a packed matrix."""

from functools import partial

import numpy as np

from .peer import Peer


class NumKong(Peer):
    name = "numkong"
    requires = ("numkong",)

    def int32(self, p):
        import numkong

        packed = numkong.dots_pack(np.ascontiguousarray(p.b_s8.T))
        out = numkong.from_dlpack(np.empty((p.m, p.n), np.int32))
        return partial(numkong.dots_packed, numkong.from_dlpack(p.a_s8), packed, out=out, threads=self.threads)
