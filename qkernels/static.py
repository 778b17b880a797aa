"""Linear layers whose activations are quantized with parameters known beforehand: 8-bit values in, 8-bit values out."""

import math

import numpy as np

from . import _arguments as arguments
from . import _core
from .affine import quantize
from .gemm import int8_gemm, pack_b
from .qparams import QParams, choose_qparams
from .weight_parts import checked_input_scales


class StaticLinear:
    """A linear layer of quantized activations: ``activation(x @ weight.T + bias)``.

    Parameters
    ----------
    weight : float32 array
        [N, K]; becomes int8, symmetric, with a scale for each of N.
    bias : float32 array, optional
        [N], finite.
    input : QParams
        Of x, or of ``x * input_scales``: per tensor, of dtype "uint8" or "int8". Observers give them
        (`qkernels.calibration`).
    output : QParams, optional
        Likewise of the result, which then is quantized, too; without them it is float32.
    activation : None, "relu", "relu6" or (low, high), optional
        A clamp in real units, fused.
    input_scales : float32 array, optional
        [K], > 0: what float32 x is multiplied with, column by column, while it is quantized; the weight is divided by
        them. With ``1 / scales`` of `ptq.smooth`, columns of large values no longer decide about all others.
    method, percentile
        How the range of the weight is chosen: see `qkernels.choose_qparams`.

    Attributes
    ----------
    shape : (int, int)
        (N, K).
    input, output : QParams, QParams or None
        As given.
    input_scales : float32 ndarray or None
        As given.

    Raises
    ------
    TypeError
        An argument's dtype is not one that it takes.
    ValueError
        A shape does not match, weight or bias is not finite, or scales multiplied are not within float32's range.

    Notes
    -----
    The result is bit-identical on every processor, since all it does is `quantize`, if x is not yet, and
    `int8_gemm` with ``scales = input.scale * weight scales``; with input_scales x is quantized with the scale
    ``input.scale / input_scales`` of its column. In a chain each layer's `output` is the next one's
    `input`, and all values between are bytes. What `output` covers need not go below 0 behind a ReLU: an observer of
    the activation's result has seen no such values.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels import choose_qparams
    >>> from qkernels.static import StaticLinear
    >>> x, w = np.float32([[0, 1, 4]]), np.float32([[1, 2, -1], [1, 2, 1]])
    >>> to_uint8 = {"dtype": "uint8", "symmetric": False}
    >>> layer = StaticLinear(w, input=choose_qparams(x, **to_uint8), activation="relu")
    >>> layer(x).round(1)
    array([[0., 6.]], dtype=float32)
    >>> StaticLinear(w, input=layer.input, output=choose_qparams([0, 6], **to_uint8), activation="relu")(x)
    array([[  0, 255]], dtype=uint8)
    """

    __slots__ = (
        "shape", "input", "output", "input_scales", "_quantization", "_activation", "_weight", "_scales", "_bias")

    @_core.in_default_floating_mode
    def __init__(self, weight, bias=None, *, input, output=None, activation=None, input_scales=None, method="minmax",
                 percentile=None):
        weight = arguments.float_array(weight, "weight")
        if weight.ndim != 2:
            raise ValueError(f"weight: got shape {weight.shape}, takes [N, K]")
        if not np.isfinite(weight).all():
            raise ValueError("weight: contains NaN or infinity")
        self.shape = weight.shape
        self.input = _checked(input, "input")
        self.output = None if output is None else _checked(output, "output")
        self._activation = activation
        self._bias = None if bias is None else arguments.linear_bias(bias, len(weight))
        self._quantization = {"scale": self.input.scale, "zero_point": self.input.zero_point}
        self.input_scales = checked_input_scales(input_scales, weight.shape[1])
        if input_scales is not None:
            with np.errstate(over="ignore", under="ignore"):
                weight, steps = weight / self.input_scales, self.input.scale / self.input_scales
            if not (np.isfinite(weight).all() and np.isfinite(steps).all() and steps.all()):
                raise ValueError("input_scales: the weight or the scale of input, divided by them, is not within "
                                 "float32's range")
            zero_points = np.full(weight.shape[1], self.input.zero_point)
            self._quantization = {"scale": steps, "zero_point": zero_points, "axis": -1}
        chosen = choose_qparams(weight, axis=0, method=method, percentile=percentile)
        self._weight = pack_b(quantize(weight, chosen.scale, axis=0), transpose=True)
        with np.errstate(over="ignore"):  # an infinity is refused with the other bad values
            self._scales = self.input.scale * chosen.scale
        if not ((self._scales > 0) & np.isfinite(self._scales)).all():
            raise ValueError("input: its scale times those of the weight is not within float32's range")
        self(np.zeros((0, weight.shape[1]), self.input.dtype))  # parameters that do not go together are refused here

    @property
    def nbytes(self):
        """Bytes of the int8 weight, its scales, and bias and input_scales where there are some; padding apart, so that
        it is the same on every processor."""
        others = (x.nbytes for x in (self._bias, self.input_scales) if x is not None)
        return math.prod(self.shape) + self._scales.nbytes + sum(others)

    @_core.in_default_floating_mode
    def __call__(self, x):
        """The layer's output.

        Parameters
        ----------
        x : float32 array, or int8 or uint8 array as `input` says
            [..., K]. float32 is quantized first; 8-bit values are those of ``x * input_scales``.

        Returns
        -------
        float32 ndarray, or with `output` int8 or uint8 ndarray
            [..., N].

        Raises
        ------
        TypeError
            x is of another dtype.
        ValueError
            Its last dimension is not K, it has NaN, or the layer was made for another ISA than the selected one.
        """
        x = arguments.array(x, "x")
        n, k = self.shape
        if x.ndim == 0 or x.shape[-1] != k:
            raise ValueError(f"x: got shape {x.shape}, takes [..., {k}]")
        if x.dtype == np.float32:
            x = quantize(x, dtype=self.input.dtype, **self._quantization)
        elif x.dtype != self.input.dtype:
            raise TypeError(f"x: got dtype {x.dtype}, takes float32 or {self.input.dtype}")
        y = int8_gemm(x.reshape(math.prod(x.shape[:-1]), k), self._weight, self._scales, bias=self._bias,
                      a_zero_point=self.input.zero_point, activation=self._activation, **self._requantization())
        return y.reshape(*x.shape[:-1], n)

    def _requantization(self):
        if self.output is None:
            return {}
        scale, zero_point, dtype, *_ = self.output
        return {"out_dtype": dtype, "out_scale": scale, "out_zero_point": zero_point}

    def __repr__(self):
        n, k = self.shape
        result = "float32" if self.output is None else self.output.dtype
        return f"<StaticLinear {n}x{k}, {self.input.dtype} to {result}, {self.nbytes} bytes>"


def _checked(parameters, name):
    """Parameters of 8-bit activations with one scale."""
    if not isinstance(parameters, QParams):
        raise TypeError(f"{name}: got {type(parameters).__name__}, takes QParams (see choose_qparams)")
    if parameters.dtype not in ("uint8", "int8") or np.ndim(parameters.scale):
        raise ValueError(f"{name}: got {parameters.dtype} with scales of shape {np.shape(parameters.scale)}, "
                         "takes uint8 or int8 with one scale")
    qtype = arguments.qtype(parameters.dtype)
    if not 0 < np.float32(parameters.scale) < math.inf or not qtype.qmin <= parameters.zero_point <= qtype.qmax:
        raise ValueError(f"{name}: got scale {parameters.scale} and zero point {parameters.zero_point}, takes a finite "
                         f"scale > 0 and {qtype.qmin} to {qtype.qmax}")
    return parameters._replace(scale=np.float32(parameters.scale))
