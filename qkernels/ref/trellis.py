"""Trellis-coded quantization: a stream of `bits` bits a weight, in which weight p is the level whose number is the
window of
bits that starts at its own ones. Words bite their own tail: a window past the end of a word goes on at its start."""

import numpy as np

CLOSED = np.float32(2.0**100)  # the cost of a state where a path may not start
SEAM = 32  # values on each side of a word's end that decide on the bits shared there


def fine_levels(window):
    """The sum of four fields of 6 bits of a hash of the state, int8 [2**window]."""
    hashed = [(state * 0xCBAC1FED % 2**32) & 0x3F3F3F3F for state in range(2**window)]
    return np.array([sum(word.to_bytes(4, "little")) - 126 for word in hashed], np.int8)


def viterbi(x, levels, bits, overlap=None):
    """The states of a path through x [T], in level units: the cheapest one, but for the rounding of costs.

    A state's lowest bits are its symbol; the others are its overlap with the next state, whose lowest bits they are.
    The path comes after `overlap` and ends before it; None: it starts and ends anywhere.
    """
    states = np.arange(len(levels))
    overlaps = len(levels) >> bits
    costs = np.zeros(overlaps, np.float32)
    if overlap is not None:
        costs[np.arange(overlaps) != overlap] = CLOSED
    symbols = []
    for value in np.asarray(x, np.float32):
        d = value - levels.astype(np.float32)
        cost = costs[states % overlaps] + d * d
        # The symbol takes the place of the cost's lowest bits, so that no two states before an overlap cost the same.
        marked = (cost.view(np.int32) & -(2**bits)) | (states % 2**bits).astype(np.int32)
        before = marked.view(np.float32).reshape(overlaps, 2**bits)
        symbols.append(before.argmin(axis=1))
        costs = before.min(axis=1)

    q = int(costs.argmin()) if overlap is None else overlap
    path = []
    for symbol in reversed(symbols):
        path.append(q << bits | int(symbol[q]))
        q = path[-1] % overlaps
    return np.array(path[::-1])


def encode(x, levels, bits):
    """Rows x [R, T] in level units to words, uint8 [R, T * bits / 8]."""
    words = []
    for row in x:
        before = min(len(row) // 2, SEAM)
        after = min(len(row) - len(row) // 2, SEAM)
        seam = np.concatenate([row[len(row) - before :], row[:after]])
        overlap = int(viterbi(seam, levels, bits)[before]) % (len(levels) >> bits)
        path = viterbi(row, levels, bits, overlap)
        stream = [int(state) >> i & 1 for state in path for i in range(bits)]
        words.append(np.packbits(stream, bitorder="little"))
    return np.stack(words)


def decode(words, levels, bits):
    """uint8 [R, T * bits / 8] to levels, int8 [R, T]."""
    stream = np.unpackbits(words, axis=1, bitorder="little").astype(np.int64)
    starts = np.arange(0, stream.shape[1], bits)
    window = len(levels).bit_length() - 1
    state = sum(stream[:, (starts + i) % stream.shape[1]] << i for i in range(window))
    return levels[state]
