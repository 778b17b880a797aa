"""quantize_weight: the options of every format and method, and the way to its quantizer."""

import numpy as np

from . import _arguments as arguments
from . import _core, formats
from .codebook import checked_weights
from .groups import checked_group_size
from .methods import CALIBRATED, INTEGERS, TAKERS, Options, quantized
from .statistics import InputStatistics, checked_statistics
from .weight_parts import SCALE_DTYPES, check_extents, checked_window
from .weight_stack import quantize_stack


@_core.in_default_floating_mode
def quantize_weight(w, format="int8", *, group_size=None, symmetric=True, method="rtn", calibration=None, ranges=None,
                    scale_dtype="float16", full_range=False, codebook=None, importance=None, window=None, rotate=False,
                    seed=0):
    """Quantize the weight of a linear layer: ``W = scale * level``, levels being small integers.

    Parameters
    ----------
    w : float32 array
        [N, K], as PyTorch stores it; or a stack of such weights, [E, N, K], as of the experts of a layer. Any strides.
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
    method : str, default "rtn"
        How codes are found.

        * "rtn": each value is rounded to the nearest level; the words of a trellis have the least squared error.
          "minmax", "mse" and "absmean" stand for this with those `ranges`.
        * "gptq": value after value, each with the errors before it fed back, so that those of the outputs become small
          [9]_. All formats but trellises.
        * "ldlq": the same by its other name, under which trellises, too, take it, word after word [10]_.
        * "awq": inputs are divided and columns multiplied by powers of the inputs' size, see
          `QuantizedWeight.input_scales`; of 20 exponents the one with the least error of the outputs [11]_. All formats
          but trellises; not with `rotate`.
        * "hqq": scales, and zero points unless symmetric, with a small sum of ``|error|^0.7`` [12]_. Integers.
        * "adaround": each value is rounded down or up so that the error of the outputs becomes small [13]_. Integers.
    calibration : InputStatistics or float32 array, optional
        What the inputs of the layer are like, see `qkernels.calibration`; or some of them, [..., K]. Needed for "gptq",
        "ldlq", "awq" and "adaround"; the other methods do not look at it. For [E, N, K] a sequence of E such; a weight
        for which it has None is rounded to nearest, "rtn".
    ranges : {"minmax", "mse", "absmean"}, optional
        How scales are chosen. "minmax": the levels of a group cover its range. "mse": what gives the least squared
        error of the weights, of integers and tables among the whole range and 97.5, 95, ... 20 % of it, of "binary" and
        "ternary" among all. "absmean", of "ternary": mean absolute value, as BitNet b1.58 has it [6]_. The default is
        "mse", but for "rtn" of integers and "nf4" it is "minmax".
    scale_dtype : {"float16", "float32"}
        How scales are stored.
    full_range : bool, default False
        Symmetric integers only: use the lowest level, too; see `choose_qparams`.
    codebook : {"tensor", "row"}, optional
        Of "codebook4": one table, the default, or one for each row, which takes 16 bytes of it.
    importance : float array, optional
        Of "codebook4": [N, K], or [K] for all rows, how much the squared error of each weight counts; or [E, N, K].
    window : int, optional
        Of a trellis: 12 to 16, the bits on which a level depends, which is then computed from them; more are better and
        take longer to find. None: 6 bits and a table, which is the fast code.
    rotate : bool, default False
        Multiply the rows of the weight by random signs and a Hadamard transform first, and those of x in `linear`; see
        `hadamard`. Rows with outliers become close to normally distributed, on which all formats but integers are best.
    seed : int, default 0
        Of the random signs, if rotate.

    Returns
    -------
    QuantizedWeight or QuantizedWeightStack
        The latter of [E, N, K]; each of its weights is what quantize_weight makes of that one alone.

    Raises
    ------
    TypeError
        w is not float32, or an array among the options has a dtype that it does not take.
    ValueError
        w is not 2-D or 3-D, or not finite, a scale overflows float16, a parameter is not one of those named, or an
        option or the method does not apply to the format.

    Notes
    -----
    Scales of "minmax" are those of `choose_qparams`, or ``max|w| / largest level``. All are rounded to scale_dtype
    before zero points, ``saturate(round_half_even(-min / scale))``, and codes are chosen with them; those that float16
    rounds to 0 become 2**-24, its least positive number. "mse" searches ranges (of [8]_, on a grid) for each group by
    itself, and keeps the largest of equal error; with a table, also the scale of least squares for the codes so found.
    Values become the nearest level of ``w / scale``, of two equally near ones the even one of integers and "ternary",
    else the lower. The result of "rtn" is the same on every processor, errors being summed in float64 in a fixed order.
    The other methods depend on the last bits of NumPy's linear algebra.

    A call that is interrupted leaves nothing; `mixed.Plan.quantize` and `mixed.make_plan` keep each layer that is done.

    "gptq" and "ldlq" add 0.01 of the mean of its diagonal to the Hessian's, and take the columns of the largest inputs
    first; scales are those of the weight as it is given. With uncorrelated inputs they round to nearest.

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
    .. [9] E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate post-training quantization for generative
       pre-trained transformers", 2022, arXiv:2210.17323.
    .. [10] J. Chee, Y. Cai, V. Kuleshov, C. De Sa, "QuIP: 2-bit quantization of large language models with
       guarantees", 2023, arXiv:2307.13304; in blocks: A. Tseng et al., "QuIP#", 2024, arXiv:2402.04396.
    .. [11] J. Lin et al., "AWQ: Activation-aware weight quantization for LLM compression and acceleration", 2023,
       arXiv:2306.00978.
    .. [12] H. Badri, A. Shaji, "Half-Quadratic Quantization of large machine learning models", 2023.
    .. [13] M. Nagel, R. A. Amjad, M. van Baalen, C. Louizos, T. Blankevoort, "Up or down? Adaptive rounding for
       post-training quantization", 2020, arXiv:2004.10568.

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
    check_extents(w.shape, "w")
    if w.ndim == 3:
        checked = _checked_calibrations(calibration, method, w.shape)

        def quantize(w, statistics, importance):
            method_of_it = "rtn" if statistics is None and method in CALIBRATED else method
            return quantize_weight(
                w, format, group_size=group_size, symmetric=symmetric, method=method_of_it, calibration=statistics,
                ranges=ranges, scale_dtype=scale_dtype, full_range=full_range, codebook=codebook, importance=importance,
                window=window, rotate=rotate, seed=seed)

        return quantize_stack(quantize, w, checked, importance)
    if w.ndim != 2:
        raise ValueError(f"w: got {w.ndim} dimension(s), takes [N, K], or [E, N, K]")
    record = formats.find(format)
    group_size = checked_group_size(group_size)
    method, ranges = _checked_method(method, ranges, record)
    calibration = _checked_calibration(calibration, method, w.shape[1])
    if scale_dtype not in SCALE_DTYPES:
        raise ValueError(f"scale_dtype: got {scale_dtype!r}, takes one of {', '.join(SCALE_DTYPES)}")
    if full_range and not symmetric:
        raise ValueError("full_range: only applies to symmetric quantization; asymmetric ranges are always full")
    for name, is_used, takers in [
        ("symmetric", not symmetric, INTEGERS), ("full_range", full_range, INTEGERS),
        ("codebook", codebook is not None, ["codebook4"]), ("importance", importance is not None, ["codebook4"]),
    ]:  # fmt: skip
        if is_used and record.name not in takers:
            raise ValueError(f"{name}: only applies to {', '.join(takers)}, not to {record.name!r}")
    if codebook not in (None, "tensor", "row"):
        raise ValueError(f"codebook: got {codebook!r}, takes 'tensor' or 'row'")
    if importance is not None:
        importance = checked_weights(importance, "importance", w.shape)
    window = checked_window(window, record)
    for name, is_used in [("importance", importance is not None), ("method: 'awq'", method == "awq")]:
        if rotate and is_used:
            raise ValueError(f"{name}: cannot be combined with rotate, which mixes the values along K")
    seed = arguments.scalar(seed, "seed", 0, 2**64 - 1)
    if seed and not rotate:
        raise ValueError("seed: only applies to rotate=True")
    if not np.isfinite(w).all():
        raise ValueError("w: contains NaN or infinity")

    options = Options(record, group_size, bool(symmetric), ranges, scale_dtype, bool(full_range), codebook, importance,
                      window)
    statistics = calibration if method in CALIBRATED else None
    return quantized(w, options, method, statistics, seed if rotate else None)


def _checked_method(method, ranges, record):
    """The method, and how scales are chosen."""
    if ranges is not None and ranges not in record.ranges:
        raise ValueError(f"ranges: got {ranges!r}, takes one of {', '.join(record.ranges)} with {record.name!r}")
    if method in record.ranges:
        if ranges is not None:
            raise ValueError(f"ranges: not with method={method!r}, which stands for 'rtn' with these ranges")
        return "rtn", method
    if method not in [*TAKERS]:  # which compares, while a dict takes hashable values alone
        names = ", ".join([*TAKERS, *record.ranges])
        raise ValueError(f"method: got {method!r}, takes one of {names} with {record.name!r}")
    if record.name not in TAKERS[method]:
        raise ValueError(f"method: {method!r} only applies to {', '.join(TAKERS[method])}, not to {record.name!r}")
    if method == "hqq" and ranges is not None:
        raise ValueError("ranges: not with method='hqq', which finds scales of its own")
    return method, ranges or (record.ranges[0] if method == "rtn" else "mse")


def _checked_calibration(calibration, method, k):
    """InputStatistics, or None."""
    if calibration is None:
        if method in CALIBRATED:
            raise ValueError(f"calibration: needed for {method!r}: inputs of the layer, or their InputStatistics")
        return None
    if not isinstance(calibration, InputStatistics):
        x = arguments.float_array(calibration, "calibration")
        try:
            calibration = InputStatistics(k).observe(x)
        except ValueError as error:
            raise ValueError(f"calibration: {error}") from None
    return checked_statistics(calibration, "calibration", k)


def _checked_calibrations(calibration, method, shape):
    """InputStatistics or None for each weight of a stack."""
    count, _, k = shape
    if not count:
        raise ValueError(f"w: got shape {shape}, takes one or more weights")
    if calibration is None:
        _checked_calibration(None, method, k)
        return [None] * count
    if isinstance(calibration, InputStatistics) or len(calibration) != count:
        raise ValueError(f"calibration: takes a sequence of {count}, one for each weight of w")
    checked = []
    for i, of_weight in enumerate(calibration):
        try:
            checked.append(None if of_weight is None else _checked_calibration(of_weight, method, k))
        except (TypeError, ValueError) as error:
            raise type(error)(f"calibration: {i}: {str(error).removeprefix('calibration: ')}") from None
    return checked
