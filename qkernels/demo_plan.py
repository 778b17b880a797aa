"""Plans of the demo: for each layer the format with which the embeddings change least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import qkernels

from .demo_calibration import Observed
from .demo_linears import CANDIDATES, Float32Linear, LowBitLinear
from .demo_sentences import DemoError
from .minilm import Encoder
from .mixed import Plan, make_plan
from .progress import progress
from .rounding import output_error

SENTENCES, BATCH = 32, 16  # that are encoded with each layer quantized alone


class Planner:
    """The encoder in float32, and what calibration has seen of it."""

    def __init__(self, tensors: dict, config: dict, observed: dict[str, Observed], ids: Sequence[Sequence[int]]):
        self.model = tensors, config
        self.statistics = {name: seen.statistics for name, seen in observed.items()}
        few = sorted(ids[:: max(len(ids) // SENTENCES, 1)][:SENTENCES], key=len)
        self.batches = [few[start : start + BATCH] for start in range(0, len(few), BATCH)]

    def plan(self, bits: float) -> Plan:
        """The best plan of so many bits a weight on average."""
        weights = {name: layer.weight for name, layer in self._encoder().linears.items()}
        try:
            return make_plan(weights, CANDIDATES, budget_bits=bits, calibration=self.statistics,
                             importance=self._importance())
        except ValueError as error:  # the budget is too small
            raise DemoError(str(error)) from None

    def apply(self, plan: Plan, activations: str) -> Encoder:
        """The encoder as a plan has it; layers that it does not name stay in float32."""
        encoder = self._encoder()
        weights = {name: layer.weight for name, layer in encoder.linears.items()}
        try:
            made = plan.quantize(weights, calibration=self.statistics)
        except (TypeError, ValueError) as error:  # of another model
            raise DemoError(str(error)) from None
        for name, weight in made.items():
            encoder.linears[name] = LowBitLinear(weight, encoder.linears[name].bias, activations)
        return encoder

    def _encoder(self) -> Encoder:
        return Encoder(*self.model, Float32Linear)

    def _importance(self) -> dict[str, float]:
        """How much the embeddings change, 1 - cosine on average, for each unit of a layer's relative output error: by
        the first candidate, in one layer at a time."""
        encoder = self._encoder()
        expected = self._embeddings(encoder)
        importance = {}
        for name, layer in progress(list(encoder.linears.items()), len(encoder.linears), "layers alone", "layer"):
            seen = self.statistics[name]
            weight = qkernels.quantize_weight(layer.weight, **CANDIDATES[0], calibration=seen)
            error = output_error(layer.weight - weight.dequantize(), seen.hessian)
            encoder.linears[name] = LowBitLinear(weight, layer.bias, "int8")
            change = 1 - np.einsum("ij,ij->i", expected, self._embeddings(encoder)).mean(dtype=np.float64)
            importance[name] = max(change, 0) * output_error(layer.weight, seen.hessian) / error
            encoder.linears[name] = layer
        return importance

    def _embeddings(self, encoder: Encoder) -> np.ndarray:
        return np.concatenate([encoder(batch) for batch in self.batches])
