"""quantize_weight: the options of every format, and the way to its quantizer."""

import numpy as np

from . import _arguments as arguments
from . import formats, trellis
from .codebook import checked_weights
from .grids import Grid, quantize_integers
from .groups import checked_group_size
from .hadamard import hadamard
from .signs import quantize_binary, quantize_ternary
from .tables import quantize_table, train
from .weights import SCALE_DTYPES, QuantizedWeight, checked_window

INTEGERS, TRELLISES = formats.of_family("integer"), formats.of_family("trellis")


def quantize_weight(w, format="int8", *, group_size=None, symmetric=True, method=None, scale_dtype="float16",
                    full_range=False, codebook=None, importance=None, window=None, hessian=None, rotate=False, seed=0):
    """Quantize the weight of a linear layer: ``W = scale * level``, levels being small integers.

    Parameters
    ----------
    w : float32 array
        [N, K], as PyTorch stores it. Any strides.
    format : str, default "int8"
        * "int8", "int4", "int2": evenly spaced levels, with zero points if they are not symmetric.
        * "nf4": 16 levels at quantiles of the normal distribution [1]_, rounded to 1/127 of the largest.
        * "codebook4": 16 levels trained for the weight by k-means [2]_ [3]_, rounded likewise.
        * "log4": 0 and +-1, 2, 4, ... 64, signed powers of two [4]_.
        * "binary": -1 and 1, the scale is the mean absolute value [5]_.
        * "ternary": -1, 0 and 1 [6]_, in 2 bits.
        * "trellis2", "trellis3", "trellis4": the level of a weight follows from its 2, 3 or 4 bits and those of its
          neighbors: trellis-coded quantization with random access [7]_.
    group_size : int, optional
        So many values along K share a scale, a multiple of 32; the last group may be short. None: one scale an output
        channel.
    symmetric : bool, default True
        Levels symmetric around 0.0, see `choose_qparams`; otherwise groups have zero points, too, which only integers
        can.
    method : {"minmax", "mse", "absmean"}, optional
        How scales are chosen. "minmax", the default of integers and "nf4": the levels of a group cover its range.
        "mse", the default of the others: what gives the least squared error of the weights, of integers and tables
        among the whole range and 97.5, 95, ... 20 % of it, of "binary" and "ternary" among all. "absmean", of
        "ternary": mean absolute value, as BitNet b1.58 has it [6]_.
    scale_dtype : {"float16", "float32"}
        How scales are stored.
    full_range : bool, default False
        Symmetric integers only: use the lowest level, too; see `choose_qparams`.
    codebook : {"tensor", "row"}, optional
        Of "codebook4": one table, the default, or one for each row, which takes 16 bytes of it.
    importance : float array, optional
        Of "codebook4": [N, K], or [K] for all rows, how much the squared error of each weight counts.
    window : int, optional
        Of a trellis: 12 to 16, the bits on which a level depends, which is then computed from them; more are better and
        take longer to find. None: 6 bits and a table, which is the fast code.
    hessian : float array, optional
        Of a trellis: [K, K], the mean of x x^T over inputs x of the layer. Errors are then fed back along K, so that
        those of the outputs become small.
    rotate : bool, default False
        Multiply the rows of the weight by random signs and a Hadamard transform first, and those of x in `linear`; see
        `hadamard`. Rows with outliers become close to normally distributed, on which all formats but integers are best.
    seed : int, default 0
        Of the random signs, if rotate.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    TypeError
        w is not float32, or an array among the options has a dtype that it does not take.
    ValueError
        w is not 2-D or not finite, a scale overflows float16, a parameter is not one of those named, or an option does
        not apply to the format.

    Notes
    -----
    Scales of "minmax" are those of `choose_qparams`, or ``max|w| / largest level``. All are rounded to scale_dtype
    before zero points, ``saturate(round_half_even(-min / scale))``, and codes are chosen with them; those that float16
    rounds to 0 become 2**-24, its least positive number. "mse" searches ranges (of [8]_, on a grid) for each group by
    itself, and keeps the largest of equal error; with a table, also the scale of least squares for the codes so found.
    Values become the nearest level of ``w / scale``, of two equally near ones the even one of integers and "ternary",
    else the lower. The result is the same on every processor, errors being summed in float64 in a fixed order.

    References
    ----------
    .. [1] T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA: Efficient finetuning of quantized LLMs", 2023,
       arXiv:2305.14314.
    .. [2] S. P. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982.
    .. [3] J. Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6, 1960.
    .. [4] D. Miyashita, E. H. Lee, B. Murmann, "Convolutional neural networks using logarithmic data representation",
       2016, arXiv:1603.01025.
    .. [5] M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, "XNOR-Net: ImageNet classification using binary
       convolutional neural networks", 2016, arXiv:1603.05279.
    .. [6] S. Ma et al., "The era of 1-bit LLMs: All large language models are in 1.58 bits", 2024, arXiv:2402.17764.
    .. [7] A. Tseng, Q. Sun, D. Hou, C. De Sa, "QTIP: Quantization with trellises and incoherence processing", 2024,
       arXiv:2406.11235.
    .. [8] Y. Choukroun, E. Kravchik, F. Yang, P. Kisilev, "Low-bit quantization of neural networks for efficient
       inference", 2019, arXiv:1902.06822.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> w = np.random.default_rng(0).normal(size=(256, 1024)).astype(np.float32)
    >>> qw = qkernels.quantize_weight(w, "int4", group_size=32)
    >>> qw.shape, qw.format, qw.scales.shape
    ((256, 1024), 'int4', (256, 32))
    >>> qkernels.quantize_weight(w, "nf4", group_size=64).levels
    array([-127,  -88,  -67,  -50,  -36,  -23,  -12,    0,   10,   20,   31,
             43,   56,   71,   92,  127], dtype=int8)
    """
    w = arguments.float_array(w, "w")
    if w.ndim != 2:
        raise ValueError(f"w: got {w.ndim} dimension(s), takes [N, K]")
    record = formats.find(format)
    group_size = checked_group_size(group_size)
    method = _checked_method(method, record)
    if scale_dtype not in SCALE_DTYPES:
        raise ValueError(f"scale_dtype: got {scale_dtype!r}, takes one of {', '.join(SCALE_DTYPES)}")
    if full_range and not symmetric:
        raise ValueError("full_range: only applies to symmetric quantization; asymmetric ranges are always full")
    for name, is_used, takers in [
        ("symmetric", not symmetric, INTEGERS), ("full_range", full_range, INTEGERS),
        ("codebook", codebook is not None, ["codebook4"]), ("importance", importance is not None, ["codebook4"]),
        ("hessian", hessian is not None, TRELLISES),
    ]:  # fmt: skip
        if is_used and record.name not in takers:
            raise ValueError(f"{name}: only applies to {', '.join(takers)}, not to {record.name!r}")
    if codebook not in (None, "tensor", "row"):
        raise ValueError(f"codebook: got {codebook!r}, takes 'tensor' or 'row'")
    if importance is not None:
        importance = checked_weights(importance, "importance", w.shape)
    window = checked_window(window, record)
    if hessian is not None:
        hessian = _checked_hessian(hessian, w.shape[1])
    if rotate and importance is not None:
        raise ValueError("importance: cannot be combined with rotate, which mixes the values along K")
    seed = arguments.scalar(seed, "seed", 0, 2**64 - 1)
    if seed and not rotate:
        raise ValueError("seed: only applies to rotate=True")
    if not np.isfinite(w).all():
        raise ValueError("w: contains NaN or infinity")
    if rotate:
        w, hessian = _rotated(w, hessian, seed)

    zero_points, rest = None, {"seed": seed if rotate else None}
    if record.family == "integer":
        grid = Grid(record.qtype, symmetric, full_range, scale_dtype)
        codes, scales, zero_points = quantize_integers(w, grid, group_size, method)
        zero_points = None if symmetric else zero_points
    elif record.family == "table":
        levels = record.levels
        if levels is None:
            start = formats.find("nf4").levels
            levels = rest["levels"] = train(w, start, group_size, method, scale_dtype, codebook == "row", importance)
        codes, scales = quantize_table(w, levels, group_size, method, scale_dtype, importance)
    elif record.family == "binary":
        codes, scales = quantize_binary(w, group_size, scale_dtype)
    elif record.family == "ternary":
        codes, scales = quantize_ternary(w, group_size, method, scale_dtype)
    else:
        codes, scales = trellis.encode(w, record.bits, window or trellis.FAST_WINDOW, group_size, scale_dtype, hessian)
        rest |= {"k": w.shape[1], "window": window}
    return QuantizedWeight(record.name, codes, scales, zero_points, group_size, **rest)


def _checked_method(method, record):
    if method is None:
        return record.methods[0]
    if method not in record.methods:
        raise ValueError(f"method: got {method!r}, takes one of {', '.join(record.methods)} with {record.name!r}")
    return method


def _checked_hessian(x, k):
    x = arguments.parameter(x, "hessian")
    if x.dtype.kind != "f":
        raise TypeError(f"hessian: got dtype {x.dtype}, takes floating-point numbers")
    if x.shape != (k, k):
        raise ValueError(f"hessian: got shape {x.shape}, takes {(k, k)}")
    if not np.isfinite(x).all():
        raise ValueError("hessian: must be finite everywhere")
    return x


def _rotated(w, hessian, seed):
    """The rotated weight, and the Hessian of inputs that are rotated likewise."""
    w = hadamard(w, seed=seed)
    if not np.isfinite(w).all():
        raise ValueError("w: its rows are too large to be rotated in float32")
    if hessian is not None:
        hessian = hadamard(hadamard(hessian.astype(np.float32), seed=seed).T, seed=seed)
    return w, hessian
