"""Quantization-aware training in PyTorch: modules over the kernels of `qkernels.qat`, for float32 tensors on the CPU.

`FakeQuantize` quantizes and dequantizes with fixed or learned scales; `QATLinear` is a linear layer with quantized
weights and activations whose forward pass is the integer product that its `QATLinear.convert` gives for inference, bit
for bit. Tensors and arrays share memory.
"""

import math

import numpy as np

try:
    import torch
except ModuleNotFoundError:
    raise ImportError("qkernels.torch needs PyTorch: pip install 'qkernels[torch]'") from None
from torch.autograd.function import once_differentiable

from . import _arguments as arguments
from . import qat
from .affine import fake_quantize, quantize
from .gemm import int8_gemm, pack_b
from .qparams import METHODS, QParams, choose_qparams

__all__ = ["FakeQuantize", "IntegerLinear", "QATLinear"]

SMALLEST_LEARNED_SCALE = 2.0**-23  # a learned scale that falls below is set to it, as in PyTorch's own modules


def _tensor(x):
    return torch.from_numpy(np.asarray(x))


class _FakeQuantize(torch.autograd.Function):
    """`fake_quantize` and its gradients. The zero point is a float, which rounds as the data do."""

    @staticmethod
    def forward(ctx, x, scale, zero_point, where, grad_factor):
        """where: dtype and axis."""
        ctx.save_for_backward(x, scale)
        ctx.zero_point, ctx.where, ctx.grad_factor = _integers(zero_point, where["dtype"]), where, grad_factor
        return _tensor(fake_quantize(x.detach(), scale.detach(), ctx.zero_point, **where))

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, scale = (tensor.detach() for tensor in ctx.saved_tensors)
        inputs = dy.detach(), x, scale, ctx.zero_point
        if not any(ctx.needs_input_grad[1:3]):
            return _tensor(qat.fake_quantize_backward(*inputs, **ctx.where)), None, None, None, None
        found = qat.learned_fake_quantize_backward(*inputs, **ctx.where, grad_factor=ctx.grad_factor)
        return *map(_tensor, found), None, None


def _integers(zero_point, dtype):
    """A float zero point as the integers that it stands for."""
    qtype = arguments.qtype(dtype)
    if not torch.isfinite(zero_point).all():
        raise ValueError("zero_point: must be finite everywhere")
    return np.clip(np.rint(zero_point.detach().numpy()), qtype.qmin, qtype.qmax).astype(np.int32)


class FakeQuantize(torch.nn.Module):
    """Quantize and dequantize, with gradients straight through, and with fixed or learned scales.

    Parameters
    ----------
    dtype : str, default "int8"
        See `qkernels.quantize`.
    axis : int, optional
        The axis that has its own scales; None for one scale.
    channels : int, optional
        How long that axis is.
    symmetric : bool, default True
        See `qkernels.choose_qparams`.
    method : str, default "minmax"
        How the first input chooses the scale: a method of `qkernels.choose_qparams`, or "lsq", `qkernels.qat.lsq_scale`
        with a zero point of 0.
    learn_scale, learn_zero_point : bool
        Whether they are parameters, which an optimizer learns, or buffers.
    grad_factor : float, optional
        See `qkernels.qat.learned_fake_quantize_backward`. None for `qkernels.qat.lsq_grad_factor` of as many values as
        share a scale in the input.

    Attributes
    ----------
    scale, zero_point : Parameter or Tensor
        float32, () or [channels]. The zero point is used as the nearest integer in the range of dtype.
    initialized : Tensor
        bool: whether scale and zero point are chosen; otherwise the next input with values does, in training or not.

    Raises
    ------
    TypeError
        dtype is unknown.
    ValueError
        method is unknown, only one of axis and channels is given, or grad_factor is not greater than 0.

    Notes
    -----
    Forward and backward are bit-identical on every processor. A learned scale that an optimizer brings below 2**-23 is
    set to it by the next use, the last one before inference included; one of NaN or infinity raises ValueError. Shapes are known from the start, so that `load_state_dict` works before the first call.

    Examples
    --------
    >>> import torch
    >>> from qkernels.torch import FakeQuantize
    >>> quantizer = FakeQuantize("int4", axis=0, channels=2)
    >>> x = torch.tensor([[1.0, 7.0], [0.3, -1.4]], requires_grad=True)
    >>> y = quantizer(x)
    >>> print(y.detach().numpy().round(2))
    [[ 1.   7. ]
     [ 0.4 -1.4]]
    >>> y.sum().backward()
    >>> print(x.grad.tolist(), quantizer.scale.grad.shape)
    [[1.0, 1.0], [1.0, 1.0]] torch.Size([2])
    """

    def __init__(self, dtype="int8", *, axis=None, channels=None, symmetric=True, method="minmax", learn_scale=True,
                 learn_zero_point=False, grad_factor=None):
        super().__init__()
        self.dtype, self.axis, self.symmetric, self.method = arguments.qtype(dtype).name, axis, symmetric, method
        if method not in (*METHODS, "lsq"):
            raise ValueError(f"method: got {method!r}, takes one of {', '.join(METHODS)}, lsq")
        if (axis is None) != (channels is None):
            raise ValueError(f"channels: got {channels} with axis {axis}, takes a number with an axis, else None")
        if grad_factor is not None:
            grad_factor = arguments.positive(grad_factor, "grad_factor", np.finfo(np.float32).max)
        self.grad_factor = grad_factor
        shape = () if axis is None else (arguments.scalar(channels, "channels", 0, 2**62),)
        for name, first, learned in (("scale", torch.ones(shape), learn_scale),
                                     ("zero_point", torch.zeros(shape), learn_zero_point)):
            if learned:
                self.register_parameter(name, torch.nn.Parameter(first))
            else:
                self.register_buffer(name, first)
        self.register_buffer("initialized", torch.tensor(False))

    @classmethod
    def from_qparams(cls, qparams, **options):
        """A quantizer that starts from the parameters that `qkernels.choose_qparams` found.

        Parameters
        ----------
        qparams : QParams
            Per tensor or per axis.
        **options
            learn_scale, learn_zero_point, grad_factor.

        Returns
        -------
        FakeQuantize

        Raises
        ------
        NotImplementedError
            qparams has groups.
        """
        if qparams.group_size is not None:
            raise NotImplementedError("qparams: has groups, takes parameters per tensor or per axis")
        channels = None if qparams.axis is None else len(qparams.scale)
        quantizer = cls(qparams.dtype, axis=qparams.axis, channels=channels, **options)
        quantizer._start(qparams.scale, qparams.zero_point)
        return quantizer

    @torch.no_grad()
    def _start(self, scale, zero_point):
        if np.shape(scale) != self.scale.shape:
            raise ValueError(f"x: has {len(scale)} channels along axis {self.axis}, takes {len(self.scale)}")
        self.scale.copy_(torch.as_tensor(scale))
        self.zero_point.copy_(torch.as_tensor(zero_point))
        self.initialized.fill_(True)

    def initialize(self, x):
        """Choose scale and zero point for x, as the first call does."""
        x = x.detach()
        if self.method == "lsq":
            self._start(qat.lsq_scale(x, self.dtype, axis=self.axis), 0)
        else:
            found = choose_qparams(x, self.dtype, axis=self.axis, symmetric=self.symmetric, method=self.method)
            self._start(found.scale, found.zero_point)

    def forward(self, x):
        if not self.initialized and x.numel():
            self.initialize(x)
        self._check_scale()
        grad_factor = self.grad_factor
        if grad_factor is None:
            grad_factor = qat.lsq_grad_factor(max(x.numel() // max(self.scale.numel(), 1), 1), self.dtype)
        where = {"dtype": self.dtype, "axis": self.axis}
        return _FakeQuantize.apply(x, self.scale, self.zero_point, where, grad_factor)

    @torch.no_grad()
    def _check_scale(self):
        """Before each use: a learned scale has to be one, whatever an optimizer has made of it."""
        if not torch.isfinite(self.scale).all():
            raise ValueError("scale: must be finite everywhere")
        if isinstance(self.scale, torch.nn.Parameter) and (self.scale < SMALLEST_LEARNED_SCALE).any():
            self.scale.clamp_(min=SMALLEST_LEARNED_SCALE)
        if not (self.scale > 0).all():
            raise ValueError("scale: must be greater than 0 everywhere")

    def qparams(self):
        """Scale and zero point as arrays.

        Returns
        -------
        QParams

        Raises
        ------
        RuntimeError
            The scale is not chosen yet.
        ValueError
            Scale or zero point is NaN or infinite, or a scale that is not learned is not greater than 0.
        """
        if not self.initialized:
            raise RuntimeError("qparams: the scale is not chosen yet; call the module, or initialize it, first")
        self._check_scale()
        zero_point = _integers(self.zero_point, self.dtype).astype(arguments.qtype(self.dtype).storage)
        return QParams(self.scale.detach().numpy().copy(), zero_point, self.dtype, self.axis, None)

    def quantize(self, x):
        """The integers of x.

        Parameters
        ----------
        x : Tensor

        Returns
        -------
        int8 or uint8 ndarray
        """
        found = self.qparams()
        return quantize(x.detach(), found.scale, found.zero_point, dtype=self.dtype, axis=self.axis)

    def extra_repr(self):
        return f"{self.dtype}, axis={self.axis}"


class _IntegerProduct(torch.autograd.Function):
    """y = x w^T + bias, computed from the integers of x and w, and differentiated as the product of their values."""

    @staticmethod
    def forward(ctx, x, w, bias, integer, rows):
        """integer: the layer of the integers of w and bias; x are the values of rows."""
        ctx.save_for_backward(x, w)
        return integer(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        of_x, of_w, of_bias = ctx.needs_input_grad[:3]
        return dy @ w if of_x else None, dy.T @ x if of_w else None, dy.sum(dim=0) if of_bias else None, None, None


class QATLinear(torch.nn.Module):
    """A linear layer with quantized weights, a scale for each output, and quantized activations, with one scale.

    Parameters
    ----------
    weight : Tensor
        float32 [N, K]. Becomes a parameter.
    bias : Tensor or None
        float32 [N].
    weight_quantizer : FakeQuantize
        Along axis 0, or per tensor.
    activation_quantizer : FakeQuantize
        Per tensor.

    Raises
    ------
    ValueError
        A quantizer has another axis.

    Notes
    -----
    The output is that of `qkernels.int8_gemm` with the integers of weights and activations, ``float32(acc) * (x_scale *
    w_scale[n]) + bias[n]``, bit-identical on every processor and to what `convert` gives. It is differentiated as the
    product of the values that the integers stand for, from which it differs by float32 rounding alone.

    Examples
    --------
    >>> import torch
    >>> from qkernels.torch import QATLinear
    >>> layer = QATLinear.from_float(torch.nn.Linear(64, 10), weight_dtype="int4")
    >>> x = torch.rand(5, 64)
    >>> layer(x).square().sum().backward()
    >>> print(layer.weight.grad.shape, layer.weight_quantizer.scale.grad.shape)
    torch.Size([10, 64]) torch.Size([10])
    >>> torch.equal(layer.convert()(x), layer(x))
    True
    """

    def __init__(self, weight, bias, weight_quantizer, activation_quantizer):
        super().__init__()
        for name, quantizer, axes in (("weight_quantizer", weight_quantizer, (0, None)),
                                      ("activation_quantizer", activation_quantizer, (None,))):
            if quantizer.axis not in axes:
                raise ValueError(f"{name}: got one along axis {quantizer.axis}, takes {' or '.join(map(str, axes))}")
        self.weight = torch.nn.Parameter(weight)
        self.bias = None if bias is None else torch.nn.Parameter(bias)
        self.weight_quantizer, self.activation_quantizer = weight_quantizer, activation_quantizer

    @classmethod
    def from_float(cls, linear, *, weight_dtype="int8", activation_dtype="uint8", method="mse", learn_scale=True):
        """A layer that starts from the weight and bias of a linear one, with which it shares no memory.

        Parameters
        ----------
        linear : torch.nn.Linear
        weight_dtype : str, default "int8"
            See `qkernels.quantize`.
        activation_dtype : str, default "uint8"
            Likewise. Scale and zero point are chosen by the range of the first input.
        method : str, default "mse"
            How the scales of the weights are chosen, see `FakeQuantize`.
        learn_scale : bool, default True
            Whether training learns the scales of weights and activations.

        Returns
        -------
        QATLinear
        """
        weight = linear.weight.detach().clone()
        of_weight = FakeQuantize(weight_dtype, axis=0, channels=len(weight), method=method, learn_scale=learn_scale)
        of_weight.initialize(weight)
        # LSQ counts the values of one example, whatever the size of the batch
        grad_factor = qat.lsq_grad_factor(max(weight.shape[1], 1), activation_dtype)
        of_activations = FakeQuantize(activation_dtype, symmetric=False, learn_scale=learn_scale,
                                      grad_factor=grad_factor)
        return cls(weight, _copy(linear.bias), of_weight, of_activations)

    def forward(self, x):
        """x: float32 [..., K]."""
        rows = _rows(x, self.weight)
        x_values, w_values = self.activation_quantizer(rows), self.weight_quantizer(self.weight)
        y = _IntegerProduct.apply(x_values, w_values, self.bias, self._integer(), rows.detach())
        return y.reshape(*x.shape[:-1], len(self.weight))

    def _integer(self):
        return IntegerLinear(self.weight_quantizer.quantize(self.weight), self.weight_quantizer.qparams(),
                             self.activation_quantizer.qparams(), self.bias)

    def convert(self):
        """The same layer for inference.

        Returns
        -------
        IntegerLinear

        Raises
        ------
        RuntimeError
            No input has chosen the scale of the activations yet.
        """
        if not self.activation_quantizer.initialized:
            raise RuntimeError("convert: the scale of the activations is not chosen yet; call the layer first")
        return self._integer()


class IntegerLinear(torch.nn.Module):
    """A linear layer with integer weights, as `QATLinear.convert` makes it; not for training.

    Parameters
    ----------
    weight : int8 or uint8 ndarray
        [N, K]; packed once.
    weight_qparams : QParams
        Of the weight, along axis 0 or per tensor.
    qparams : QParams
        Of the input, per tensor.
    bias : Tensor or None
        float32 [N].

    Notes
    -----
    ``float32(acc) * (scale * weight_scale[n]) + bias[n]``, each operation rounded to float32 once: bit-identical on
    every processor. The buffers are all of its state.
    """

    def __init__(self, weight, weight_qparams, qparams, bias):
        super().__init__()
        self.dtype = qparams.dtype
        self.register_buffer("weight", _tensor(weight))
        self.register_buffer("weight_scale", _tensor(weight_qparams.scale))
        self.register_buffer("weight_zero_point", _tensor(weight_qparams.zero_point))
        self.register_buffer("scale", _tensor(qparams.scale))
        self.register_buffer("zero_point", _tensor(qparams.zero_point))
        self.register_buffer("bias", _copy(bias))
        self.register_load_state_dict_post_hook(_pack)
        _pack(self)

    @torch.no_grad()
    def forward(self, x):
        """x: float32 [..., K]."""
        rows = quantize(_rows(x, self.weight).detach(), self.scale, self.zero_point, dtype=self.dtype)
        y = int8_gemm(rows, self._packed, self.scale * self.weight_scale, a_zero_point=self.zero_point, bias=self.bias)
        return _tensor(y).reshape(*x.shape[:-1], len(self.weight))


def _pack(layer, _=None):
    """What an IntegerLinear multiplies with follows from its buffers."""
    layer._packed = pack_b(layer.weight, b_zero_point=layer.weight_zero_point, transpose=True)


def _rows(x, weight):
    k = weight.shape[1]
    if x.ndim == 0 or x.shape[-1] != k:
        raise ValueError(f"x: got shape {tuple(x.shape)}, takes [..., {k}]")
    return x.reshape(math.prod(x.shape[:-1]), k)


def _copy(bias):
    return None if bias is None else bias.detach().clone()
