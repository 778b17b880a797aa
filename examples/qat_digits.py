#!/usr/bin/env python3
"""Quantization-aware training of a small network on scikit-learn's digits, next to rounding after training.

A perceptron of two layers is trained in float32. Then its weights are quantized to 4 and to 2 bits with a scale for
each output, and its activations to 8 bits: by rounding to nearest (with the range of the weights, and with that of the
least squared error), and by training it on from there with quantized weights and learned scales (LSQ). The forward pass
of quantized networks, in training, too, is the integer product that a deployed network runs, `qkernels.int8_gemm`.
"""

import argparse
import copy

import numpy as np

import qkernels
from qkernels import qat
from qkernels.progress import progress

HIDDEN = 12
BATCH = 32
MOMENTUM = 0.9


class Linear:
    """y = x w^T + b: in float32, or with int4 or int2 weights and uint8 activations, which must not be negative."""

    def __init__(self, inputs, outputs, rng):
        self.dtype = None
        self.parameters = {
            "w": (rng.standard_normal((outputs, inputs)) * np.sqrt(2 / inputs)).astype(np.float32),
            "b": np.zeros(outputs, np.float32),
        }

    def quantize(self, x, dtype, method):
        """Choose scales for the weights, which training learns, and one for activations like x, which it leaves."""
        self.dtype = dtype
        self.parameters["w_scale"] = qkernels.choose_qparams(self.parameters["w"], dtype, axis=0, method=method).scale
        self.x_scale = qkernels.choose_qparams(x, "uint8", symmetric=False).scale

    def forward(self, x):
        p, self.x = self.parameters, x
        if self.dtype is None:
            return x @ p["w"].T + p["b"]
        self.qx = qkernels.quantize(x, self.x_scale, dtype="uint8")
        self.qw = qkernels.quantize(p["w"], p["w_scale"], dtype=self.dtype, axis=0)
        return qkernels.int8_gemm(self.qx, self.qw.T, self.x_scale * p["w_scale"], bias=p["b"])

    def backward(self, dy):
        """The gradient of x, and those of the parameters by name; straight through what is rounded."""
        p = self.parameters
        if self.dtype is None:
            return dy @ p["w"], {"w": dy.T @ self.x, "b": dy.sum(axis=0)}
        x = qkernels.dequantize(self.qx, self.x_scale)
        w = qkernels.dequantize(self.qw, p["w_scale"], axis=0)
        dx = qat.fake_quantize_backward(dy @ w, self.x, self.x_scale, dtype="uint8")
        dw, dw_scale, _ = qat.learned_fake_quantize_backward(
            dy.T @ x, p["w"], p["w_scale"], dtype=self.dtype, axis=0,
            grad_factor=qat.lsq_grad_factor(w.shape[1], self.dtype))
        return dx, {"w": dw, "b": dy.sum(axis=0), "w_scale": dw_scale}


class Network:
    """Two layers with a rectifier between them."""

    def __init__(self, inputs, outputs, rng):
        self.layers = Linear(inputs, HIDDEN, rng), Linear(HIDDEN, outputs, rng)

    def quantized(self, x, dtype, method):
        """A copy whose scales are chosen with the inputs x."""
        network = copy.deepcopy(self)
        first, second = network.layers
        hidden = np.maximum(first.forward(x), 0)
        first.quantize(x, dtype, method)
        second.quantize(hidden, dtype, method)
        return network

    def logits(self, x):
        first, second = self.layers
        return second.forward(np.maximum(first.forward(x), 0))

    def gradients(self, x, labels):
        """Those of the mean cross-entropy with respect to the parameters of each layer."""
        first, second = self.layers
        dlogits = (np.exp(log_softmax(self.logits(x))) - np.eye(10, dtype=np.float32)[labels]) / np.float32(len(x))
        dhidden, of_second = second.backward(dlogits)
        _, of_first = first.backward(dhidden * (second.x > 0))
        return of_first, of_second


def log_softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def train(network, x, labels, epochs, rate, rng, title):
    """Stochastic gradient descent with momentum; the rate falls to 0 along a cosine."""
    velocity = [{name: np.zeros_like(p) for name, p in layer.parameters.items()} for layer in network.layers]
    batches = [batch for _ in range(epochs) for batch in np.array_split(rng.permutation(len(x)), len(x) // BATCH)]
    for step, batch in enumerate(progress(batches, len(batches), title, "batch")):
        now = np.float32(rate * (1 + np.cos(np.pi * step / len(batches))) / 2)
        for layer, moving, gradients in zip(network.layers, velocity, network.gradients(x[batch], labels[batch])):
            for name, gradient in gradients.items():
                moving[name] = np.float32(MOMENTUM) * moving[name] + gradient
                layer.parameters[name] = layer.parameters[name] - now * moving[name]
                if name.endswith("scale"):
                    layer.parameters[name] = np.maximum(layer.parameters[name], np.float32(1e-5))


def evaluate(network, x, labels):
    """Accuracy and mean cross-entropy."""
    logits = network.logits(x)
    return np.mean(logits.argmax(axis=1) == labels), -np.mean(log_softmax(logits)[np.arange(len(x)), labels])


def load_digits(rng):
    """Images and labels to train with, then 500 to test with; pixels are multiples of 1/16 up to 1."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit("qat_digits.py needs scikit-learn: pip install 'qkernels[examples]'") from error
    digits = load_digits()
    order = rng.permutation(len(digits.target))
    x, labels = (digits.data / 16).astype(np.float32)[order], digits.target[order]
    return x[500:], labels[500:], x[:500], labels[:500]


def run(epochs, seed):
    """(name, accuracy, mean cross-entropy) of each network on images that none has seen."""
    rng = np.random.default_rng(seed)
    x, labels, test_x, test_labels = load_digits(rng)
    network = Network(x.shape[1], 10, rng)
    train(network, x, labels, epochs, 0.1, rng, "float32")
    results = [("float32", *evaluate(network, test_x, test_labels))]
    for dtype in ("int4", "int2"):
        for method in ("minmax", "mse"):
            quantized = network.quantized(x, dtype, method)
            results.append((f"{dtype}, rounded, {method}", *evaluate(quantized, test_x, test_labels)))
        train(quantized, x, labels, epochs, 0.03, rng, dtype)
        results.append((f"{dtype}, trained", *evaluate(quantized, test_x, test_labels)))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40, metavar="N", help="of each training (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and batches (default %(default)s)")
    args = parser.parse_args()
    print(f"{'weights':<24}{'accuracy':>10}{'loss':>9}")
    for name, accuracy, loss in run(args.epochs, args.seed):
        print(f"{name:<24}{accuracy:>10.1%}{loss:>9.3f}")


if __name__ == "__main__":
    main()
