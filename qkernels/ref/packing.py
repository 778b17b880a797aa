"""Sub-byte values, 8 // bits of them a byte, along the last axis.

low_first, 4 bits:   byte 0 = [ q1 | q0 ]   (the right end is bit 0)
high_first, 4 bits:  byte 0 = [ q0 | q1 ]
"""

import numpy as np


def shifts(bits, order):
    """How far left each of the values of one byte goes."""
    low_first = np.arange(0, 8, bits)
    return {"low_first": low_first, "high_first": low_first[::-1]}[order]


def pack(q, bits, *, order="low_first"):
    q = np.asarray(q)
    low = 0 if q.dtype == np.uint8 else -(1 << (bits - 1))
    if q.size and (q.min() < low or q.max() >= low + (1 << bits)):
        raise ValueError(f"q: values outside {bits} bits")
    per_byte = 8 // bits
    count = -(-q.shape[-1] // per_byte)
    fields = np.zeros(q.shape[:-1] + (count * per_byte,), np.int64)
    fields[..., : q.shape[-1]] = q.astype(np.int64) & ((1 << bits) - 1)
    fields = fields.reshape(q.shape[:-1] + (count, per_byte))
    return (fields << shifts(bits, order)).sum(axis=-1).astype(np.uint8)


def unpack(p, bits, length, *, signed=True, order="low_first"):
    p = np.asarray(p).astype(np.int64)
    fields = (p[..., None] >> shifts(bits, order)) & ((1 << bits) - 1)
    fields = fields.reshape(p.shape[:-1] + (p.shape[-1] * (8 // bits),))[..., :length]
    if signed:
        negative = fields >= 1 << (bits - 1)
        return np.where(negative, fields - (1 << bits), fields).astype(np.int8)
    return fields.astype(np.uint8)
