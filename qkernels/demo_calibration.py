"""What the linear layers of the demo's encoder get to see, on sentences apart from those of the comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, product

import numpy as np

from .calibration import InputStatistics, MinMaxObserver
from .demo_linears import Float32Linear
from .minilm import LINEARS, SAME_INPUT, Encoder


class Observed:
    """What the inputs of a layer are like: their `statistics`, and the least and greatest of each column."""

    def __init__(self, k: int):
        self.statistics = InputStatistics(k)
        self.columns = MinMaxObserver(axis=-1)

    def observe(self, x: np.ndarray) -> None:
        self.statistics.observe(x)
        self.columns.observe(x)


class ObservedLinear:
    """A layer that shows its inputs before it computes."""

    def __init__(self, linear: Float32Linear, observed: Observed):
        self.linear, self.observed = linear, observed

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.observed.observe(x)
        return self.linear(x)


def calibrate(tensors: dict, config: dict, batches: Iterable[Sequence[Sequence[int]]]) -> dict[str, Observed]:
    """Encode batches of token ids in float32 and observe the inputs of every linear layer, shared ones once."""
    encoder = Encoder(tensors, config, Float32Linear)
    observed = {}
    for layer, part in product(encoder.layers, LINEARS):
        name = layer + part
        if part in SAME_INPUT:
            observed[name] = observed[layer + SAME_INPUT[part]]
        else:
            linear = encoder.linears[name]
            observed[name] = Observed(linear.weight.shape[1])
            encoder.linears[name] = ObservedLinear(linear, observed[name])
    for batch in batches:
        encoder(batch)
    return observed


def batches_without_padding(ids: Sequence[Sequence[int]], size: int) -> list[list[Sequence[int]]]:
    """Batches of up to `size` sentences of one length, so that observers see tokens alone."""
    batches = []
    for _, same in groupby(sorted(ids, key=len), len):
        same = list(same)
        batches += [same[start : start + size] for start in range(0, len(same), size)]
    return batches
