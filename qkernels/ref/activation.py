"""Smooth activations in float64, from their definitions."""

import math

import numpy as np

FAR_LEFT = -1000.0  # both are -0.0 from here on; minus infinity times a factor of zero would be a NaN


def gelu(x):
    """x * Phi(x), with the normal distribution function Phi(x) = erfc(-x / sqrt(2)) / 2."""
    x = np.maximum(np.asarray(x, np.float64), FAR_LEFT)
    phi = [0.5 * math.erfc(-value / math.sqrt(2)) for value in x.ravel().tolist()]
    return x * np.reshape(phi, x.shape)


def silu(x):
    """x * sigmoid(x), with sigmoid(x) = 1 / (1 + exp(-x))."""
    x = np.maximum(np.asarray(x, np.float64), FAR_LEFT)
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))
