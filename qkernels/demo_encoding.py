"""Encoding with several encoders in turns, and how close their embeddings are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from .minilm import Encoder


def agreement(expected: np.ndarray, got: np.ndarray) -> dict:
    """How close unit vectors are to the expected ones, as figures for JSON."""
    cosine = np.einsum("ij,ij->i", expected, got, dtype=np.float64)
    same = float(np.mean(nearest(expected) == nearest(got))) if len(got) > 1 else None
    return {
        "cosine_mean": float(cosine.mean()),
        "cosine_worst": float(cosine.min()),
        "nearest_neighbor_agreement": same,
    }


def encode_in_turns(
    encoders: Sequence[Encoder],
    batches: Sequence[Sequence[Sequence[int]]],
    repeat: int,
    progress: Callable[[], object],
) -> tuple[list[np.ndarray], list[tuple[float, float]]]:
    """Encode every batch with every encoder, taking turns, `repeat` times.

    Returns
    -------
    vectors : list of ndarray
        For each encoder, the embeddings in the order of the batches.
    times : list of (float, float)
        For each encoder, the seconds of one pass over all batches, and the part of them spent in
        linear layers: the sum over the batches of the median over the rounds.
    """
    seconds = np.empty((len(encoders), 2, repeat, len(batches)))
    vectors = [[] for _ in encoders]
    for encoder in encoders:
        encoder(batches[0])  # warm up
    for r in range(repeat):
        for b, batch in enumerate(batches):
            turns = list(enumerate(encoders))
            for e, encoder in turns if (r + b) % 2 == 0 else reversed(turns):
                linear_before, start = encoder.linear_seconds, time.perf_counter()
                embeddings = encoder(batch)
                total = time.perf_counter() - start
                seconds[e, :, r, b] = total, encoder.linear_seconds - linear_before
                if r == 0:
                    vectors[e].append(embeddings)
            progress()
    times = np.median(seconds, axis=2).sum(axis=2)
    return [np.concatenate(v) for v in vectors], [tuple(row) for row in times.tolist()]


def nearest(vectors: np.ndarray, block: int = 256) -> np.ndarray:
    """Index of the most similar other vector, for each of the unit vectors."""
    vectors = vectors.astype(np.float64)
    found = np.empty(len(vectors), np.intp)
    for start in range(0, len(vectors), block):
        similarity = vectors[start : start + block] @ vectors.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        found[start : start + block] = similarity.argmax(axis=1)
    return found
