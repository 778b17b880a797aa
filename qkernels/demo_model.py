"""Models of the demo in files: the encoder's tensors, its linear layers quantized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import qkernels

from . import shards
from .demo_linears import MIXED, Float32Linear, Int8Linear, LowBitLinear, Scheme
from .demo_sentences import DemoError
from .files import QuantizedModel
from .gemm import PackedB
from .minilm import Encoder
from .weights import QuantizedWeight

SCALES = ".scales"  # is added to the name of an int8 matrix for that of its scales


def tensors_of(encoder: Encoder) -> dict:
    """What a file holds of an encoder."""
    held = dict(encoder.tensors)
    for name, layer in encoder.linears.items():
        weight = name + ".weight"
        if isinstance(layer, Int8Linear):
            held[weight], held[weight + SCALES] = layer.packed, layer.scales
        elif isinstance(layer, LowBitLinear):
            held[weight] = layer.weight
        elif not isinstance(layer, Float32Linear):
            raise DemoError("--save-model: layers of static activations cannot be saved")
    return held


@contextmanager
def naming_errors(path: str) -> Iterator[None]:
    """What is wrong with a file, in a line for the user."""
    try:
        yield
    except OSError as error:
        raise DemoError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DemoError(str(error)) from None


def files_of(path: str) -> list[Path]:
    """The files of a model, and its index."""
    with naming_errors(path):
        return [*shards.shard_paths(path)[0], shards.model_path(path)]


def open_model(path: str, tensors: Mapping[str, np.ndarray]) -> QuantizedModel:
    """The model in a file, which has what the float32 model has."""
    with naming_errors(path):
        model = qkernels.load(path)
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:  # what encodes has values of this type
            continue
        if name not in model:
            raise DemoError(f"{path}: is not all-MiniLM-L6-v2, it lacks {name}")
        shape = tuple(model.shape(name))
        if shape not in (tensor.shape, tensor.shape[::-1]):  # int8_gemm has weights [K, N]
            raise DemoError(f"{path}: is not all-MiniLM-L6-v2: {name} is {shape}, takes {tensor.shape}")
    return model


def encoder_of(model: QuantizedModel, config: dict, activations: str) -> Encoder:
    """The encoder whose tensors lie in a file."""
    encoder = Encoder(model, config, lambda weight, bias: (weight, bias))
    for name, (weight, bias) in encoder.linears.items():
        if isinstance(weight, PackedB):
            encoder.linears[name] = Int8Linear(weight, model[name + ".weight" + SCALES], bias)
        elif isinstance(weight, QuantizedWeight):
            encoder.linears[name] = LowBitLinear(weight, bias, activations)
        else:
            encoder.linears[name] = Float32Linear(weight, bias)
    return encoder


def scheme_of(encoder: Encoder, activations: str, path: str) -> Scheme:
    """How its layers are quantized, where all are alike; else that the file says it."""
    schemes = {_scheme(layer, activations) for layer in encoder.linears.values()}
    if len(schemes) > 1 or None in schemes:
        return Scheme(MIXED, None, True, activations, plan=path)
    return schemes.pop()


def _scheme(layer, activations: str) -> Scheme | None:
    """None for a layer in float32."""
    if isinstance(layer, Int8Linear):
        return Scheme("int8", None, True)
    if not isinstance(layer, LowBitLinear):
        return None
    weight = layer.weight
    return Scheme(weight.format, weight.group_size, weight.symmetric, activations, weight.seed is not None,
                  weight.window)
