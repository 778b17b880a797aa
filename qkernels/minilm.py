"""The sentence encoder of the demo: BERT with mean pooling, in float32 NumPy.

The linear layers are plugged in from outside, so that the same encoder runs with NumPy's float32
matrix product and with qkernels; the time spent in them is kept apart from the rest.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .files import QuantizedModel

LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
SAME_INPUT = {"attention.self.key": "attention.self.query", "attention.self.value": "attention.self.query"}

# Phi(x) = 0.5 * (1 + tanh(x * P(x*x))) with P fitted (weighted minimax, 1e-7 in gelu) to
# atanh(erf(x / sqrt(2))) / x; highest power first. It grows, so tanh saturates for large |x|.
_GELU_POLY = tuple(
    np.float32(c)
    for c in (
        1.80561568e-09,
        -1.33446376e-07,
        3.96910892e-06,
        -5.52401545e-05,
        -3.31300071e-05,
        3.63342835e-02,
        7.97884216e-01,
    )
)
_GELU_BLOCK = 16384  # elements; three buffers of this size stay in the L2 cache


def gelu(x: np.ndarray) -> np.ndarray:
    """Replace x by its exact (erf) GELU, in place.

    ``gelu(x) = x * Phi(x)`` with the normal distribution function Phi. The absolute error is below
    ``3e-7 + 6e-8 * |x|`` (the last term is half a float32 ulp of x).

    Parameters
    ----------
    x : C-contiguous float32 ndarray
        Finite values.

    Returns
    -------
    ndarray
        `x` itself.
    """
    flat = x.reshape(-1)
    square, phi = np.empty((2, min(flat.size, _GELU_BLOCK)), np.float32)
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, _GELU_BLOCK):
            v = flat[start : start + _GELU_BLOCK]
            s, p = square[: v.size], phi[: v.size]
            np.multiply(v, v, out=s)
            np.multiply(s, _GELU_POLY[0], out=p)
            for c in _GELU_POLY[1:-1]:
                p += c
                p *= s
            p += _GELU_POLY[-1]
            p *= v
            np.tanh(p, out=p)
            p *= np.float32(0.5)
            p += np.float32(0.5)
            v *= p
    return x


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Normalize the rows of the 2-D x in place: zero mean, unit variance, then weight and bias."""
    x -= x.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", x, x) / np.float32(x.shape[1])
    x *= (np.float32(1) / np.sqrt(variance + np.float32(eps)))[:, None]
    x *= weight
    x += bias
    return x


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in place."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


class Encoder:
    """A BERT encoder whose linear layers come from outside.

    Parameters
    ----------
    tensors : dict of str to float32 ndarray, or QuantizedModel
        The weights under their Hugging Face names.
    config : dict
        The model's ``config.json``.
    make_linear : callable
        ``make_linear(weight, bias)`` is called once per linear layer, with weight [N, K], and
        returns a function from [M, K] to a new array [M, N].

    Attributes
    ----------
    linear_seconds : float
        Time spent in the linear layers since the object was made.
    """

    def __init__(
        self,
        tensors: dict[str, np.ndarray] | QuantizedModel,
        config: dict,
        make_linear: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]],
    ):
        self.tensors = tensors
        self.heads = config["num_attention_heads"]
        self.eps = config["layer_norm_eps"]
        self.layers = [f"encoder.layer.{i}." for i in range(config["num_hidden_layers"])]
        self.linears = {
            name: make_linear(tensors[name + ".weight"], tensors[name + ".bias"])
            for layer in self.layers
            for name in (layer + part for part in LINEARS)
        }
        self.linear_seconds = 0.0

    def __call__(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Encode a batch.

        Parameters
        ----------
        ids : sequence of sequences of int
            The token ids of each sentence, special tokens included; the lengths may differ.

        Returns
        -------
        ndarray of float32, [len(ids), hidden size]
            Unit vectors.
        """
        lengths = np.array([len(row) for row in ids])
        batch, length = len(ids), int(lengths.max())
        is_token = np.arange(length) < lengths[:, None]
        padded = np.zeros((batch, length), np.intp)
        padded[is_token] = np.concatenate(ids)
        # Added to the attention scores: padding gets no weight.
        score_bias = np.where(is_token, np.float32(0), np.float32(-1e9))[:, None, None, :]

        x = self._embed(padded)
        for layer in self.layers:
            attended = self._attention(layer, x, score_bias)
            attended = self._linear(layer + "attention.output.dense", attended)
            attended += x
            x = self._norm(layer + "attention.output.LayerNorm", attended)
            expanded = gelu(self._linear(layer + "intermediate.dense", x))
            projected = self._linear(layer + "output.dense", expanded)
            projected += x
            x = self._norm(layer + "output.LayerNorm", projected)

        # Mean over the real tokens, scaled to length 1 (which makes the division by their
        # number superfluous).
        pooled = np.einsum("bl,blh->bh", is_token.astype(np.float32), x.reshape(batch, length, -1))
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def _embed(self, ids: np.ndarray) -> np.ndarray:
        x = self._rows("embeddings.word_embeddings.weight", ids)
        x += self._rows("embeddings.position_embeddings.weight", np.arange(ids.shape[1]))
        x += self._rows("embeddings.token_type_embeddings.weight", np.zeros(1, np.intp))
        return self._norm("embeddings.LayerNorm", x.reshape(ids.size, -1))

    def _rows(self, name: str, index: np.ndarray) -> np.ndarray:
        """A copy of rows of a tensor; of a file nothing else is read."""
        tensors = self.tensors
        return tensors.rows(name, index) if isinstance(tensors, QuantizedModel) else tensors[name][index]

    def _attention(self, layer: str, x: np.ndarray, score_bias: np.ndarray) -> np.ndarray:
        batch, length = score_bias.shape[0], score_bias.shape[-1]

        def by_head(name: str) -> np.ndarray:  # -> [batch, heads, length, head size]
            y = self._linear(layer + "attention.self." + name, x)
            return y.reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3)

        query, key, value = by_head("query"), by_head("key"), by_head("value")
        scores = query @ key.swapaxes(2, 3)
        scores *= np.float32(1 / math.sqrt(query.shape[-1]))
        scores += score_bias
        context = softmax(scores) @ value
        return context.transpose(0, 2, 1, 3).reshape(x.shape)

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        tensors = self.tensors
        return layer_norm(x, tensors[name + ".weight"], tensors[name + ".bias"], self.eps)

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        y = self.linears[name](x)
        self.linear_seconds += time.perf_counter() - start
        return y


def load_model(folder: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Read a model folder: the tensors by name, and its ``config.json``."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return load_file(folder / "model.safetensors"), config


def tokenize(folder: Path, sentences: Sequence[str]) -> list[list[int]]:
    """Token ids of each sentence, cut at the length that the model was trained for."""
    from tokenizers import Tokenizer

    config = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=config["max_seq_length"])
    return [tokenizer.encode(sentence).ids for sentence in sentences]
