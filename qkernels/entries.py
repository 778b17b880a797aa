"""What an entry of a file is: from a value to its description and tensors, and back.

    kind            tensors, by what is added to the entry's name
    "weight"        "" the packed form, ".levels", ".input_scales"
    "weights"       ".0" and what a "weight" has, ".1" and the same, and so on: a stack, shape [E, N, K]
    "packed_b"      "" the packed form
    "statistics"    "." and the name of each array of its state
    "array"         ""
"""

import itertools
import re

import numpy as np

from . import _arguments as arguments
from . import _core, formats, safetensors_format
from .gemm import PackedB
from .groups import checked_group_size
from .statistics import ENTRIES, InputStatistics
from .weight_parts import SCALE_DTYPES, check_extents, state_bytes
from .weight_stack import MadeWhenAsked, QuantizedWeightStack
from .weights import QuantizedWeight

ARRAY, MATRIX = {"kind": "array"}, {"kind": "weight"}


def layout_id(layout):
    """A layout of packed forms as text: "nr16-kr4-bytes_signed0-lanes2"."""
    return "-".join(f"{name}{value}" for name, value in layout.items())


def layout_of(text, like):
    """The inverse, with the names of another layout."""
    pattern = "-".join(f"{name}([0-9]{{1,3}})" for name in like)
    found = re.fullmatch(pattern, text) if isinstance(text, str) else None
    if not found or any(int(number) > 255 for number in found.groups()):
        raise ValueError(f"layout: got {text!r}, takes one as {layout_id(like)}")
    return dict(zip(like, map(int, found.groups()), strict=True))


def checked_isa(isa, name):
    """The name of an ISA, of this machine or another; of None the selected one."""
    if isa is None:
        return _core.selected_isa()
    known = _core.weight_layouts()
    if not isinstance(isa, str) or isa not in known:
        raise ValueError(f"{name}: got {isa!r}, takes one of {', '.join(known)}")
    return isa


def describe(value, name, isa=None):
    """A value as an entry.

    Parameters
    ----------
    value : QuantizedWeight, QuantizedWeightStack, PackedB, InputStatistics or array
    name : str
        For errors.
    isa : str, optional
        In whose layout packed forms are, by default the selected one's; those in another are packed anew.

    Returns
    -------
    description : dict
        For JSON; its "kind" is one of those above.
    tensors : dict of str to ndarray

    Raises
    ------
    TypeError
        The value is something else.
    """
    isa = checked_isa(isa, "isa")
    if isinstance(value, QuantizedWeight):
        return weight_description(value, value.shape, isa), weight_tensors(value, _core.weight_layouts()[isa])
    if isinstance(value, QuantizedWeightStack):
        layout = _core.weight_layouts()[isa]
        tensors = {f".{i}{suffix}": array for i, weight in enumerate(value)
                   for suffix, array in weight_tensors(weight, layout).items()}
        return weight_description(value[0], value.shape, isa), tensors
    if isinstance(value, PackedB):
        layout = _core.b_layouts()[isa]
        packed = value if value.layout == layout else value.repacked(layout)
        description = {"kind": "packed_b", "shape": list(value.shape), "dtype": value.dtype.name, "isa": isa,
                       "layout": layout_id(layout)}
        return checked_description(description), {"": packed.memory}
    if isinstance(value, InputStatistics):
        return {"kind": "statistics", "rows": int(value.count), "k": value.k}, {
            "." + entry: array for entry, array in value.to_state().items()}
    return ARRAY, {"": arguments.array(value, name)}


def weight_tensors(weight, layout):
    """The tensors of a weight packed in this layout, by what is added to its name."""
    packed = weight.packed if weight.packed.layout == layout else weight.repacked(layout)
    tensors = {"": packed.memory}
    if weight.format == "codebook4":
        tensors[".levels"] = weight.levels
    if weight.input_scales is not None:
        tensors[".input_scales"] = weight.input_scales
    return tensors


def weight_description(weight, shape, isa):
    """What a file says of a weight like this one of another shape, or of a stack of such, packed for an ISA."""
    description = {"kind": "weight" if len(shape) == 2 else "weights", "format": weight.format, "shape": list(shape),
                   "group_size": weight.group_size, "scale_dtype": weight.packed.scale_dtype,
                   "zero_points": not weight.symmetric, "window": weight.window, "seed": weight.seed,
                   "isa": isa, "layout": layout_id(_core.weight_layouts()[isa])}
    return checked_description({name: entry for name, entry in description.items() if entry is not None})


def state_bytes_of(description, shapes):
    """`nbytes` of a "weight", or of a stack of "weights".

    Parameters
    ----------
    description : dict
    shapes : dict of str to tuple of int
        Those of its tensors, by suffix.

    Raises
    ------
    ValueError
        The description says what no weight is.
    """
    if description["scale_dtype"] not in SCALE_DTYPES:
        raise ValueError(f"scale_dtype: got {description['scale_dtype']!r}, takes one of {', '.join(SCALE_DTYPES)}")
    return state_bytes(
        formats.find(description["format"]), description["shape"], checked_group_size(description.get("group_size")),
        description["scale_dtype"], has_zero_points=description["zero_points"],
        row_tables=any(len(shape) == 2 for suffix, shape in shapes.items() if suffix.endswith(".levels")),
        integers=[description.get("window"), description.get("seed")],
        has_input_scales=any(suffix.endswith(".input_scales") for suffix in shapes))


def checked_description(description):
    """A description as `describe` gives it, perhaps from a file that is damaged."""
    kind = description.get("kind") if isinstance(description, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"takes an object with a kind of {', '.join(KINDS)}")
    needed, others, _ = KINDS[kind]
    for name in needed:
        if name not in description:
            raise ValueError(f"lacks {name}")
    for name, value in description.items():
        if name not in ("kind", *needed, *others):
            raise ValueError(f"has {name!r}, which is no part of it")
        if type(value) is not TYPES[name]:
            raise ValueError(f"{name}: got {type(value).__name__}, takes {TYPES[name].__name__}")
    if "shape" in needed:
        _check_shape(description["shape"], 3 if kind == "weights" else 2)
    return description


def check_names(descriptions, model):
    """Refuse entries of which one has the name of a tensor that another has or may have: a file would mix them up.

    Parameters
    ----------
    descriptions : dict of str to dict
    model : str
        For errors.

    Raises
    ------
    ValueError
        The message has the names of both.
    """
    owners = {}
    for name, description in descriptions.items():
        for suffix in _suffixes(description, range(description["shape"][0] if "shape" in description else 0)):
            owner = owners.setdefault(name + suffix, name)
            if owner != name:
                raise ValueError(f"{model}: {owner}, {name}: {name + suffix} can be a tensor of either; rename one, or "
                                 "keep both as arrays")


def _suffixes(description, numbers):
    """What is added to an entry's name to name tensors that may be there; numbers: of the weights of a stack."""
    suffixes = KINDS[description["kind"]][2]
    return [f".{i}{suffix}" for i in numbers for suffix in suffixes] if description["kind"] == "weights" else suffixes


def parts(name, description, tensors):
    """The tensors of an entry, by what is added to its name; tensors: dict of all."""
    there = ()
    if description["kind"] == "weights":
        there = itertools.takewhile(lambda i: f"{name}.{i}" in tensors, range(description["shape"][0]))
    return {suffix: tensors[name + suffix] for suffix in _suffixes(description, there) if name + suffix in tensors}


def packed_forms(description):
    """What is added to an entry's name to name those of its tensors that are packed forms."""
    if description["kind"] == "weights":
        return [f".{i}" for i in range(description["shape"][0])]
    return [""] if description["kind"] in ("weight", "packed_b") else []


def is_complete(description, own):
    """Whether an entry has the tensors without which it is none; own: its `parts`."""
    if description["kind"] == "weights":
        return f".{description['shape'][0] - 1}" in own  # `parts` counts from the first one on
    return KINDS[description["kind"]][2][0] in own


def make_stack(description, own, make):
    """A stack whose weights are made when they are asked for, the first one now.

    Parameters
    ----------
    description : dict
        Of "weights".
    own : mapping of str to Tensor
        Its `parts`.
    make : callable
        From a suffix, such as ".2", and the description of a "weight" to the QuantizedWeight.

    Returns
    -------
    QuantizedWeightStack
    """
    count, *shape = description["shape"]
    of_one = description | {"kind": "weight", "shape": shape}
    weights = MadeWhenAsked(count, lambda i: make(f".{i}", of_one))
    return QuantizedWeightStack.of_sequence(weights, any(suffix.endswith(".input_scales") for suffix in own))


def make(description, tensors):
    """The inverse of `describe`.

    Parameters
    ----------
    description : dict
        Checked by `checked_description`; not of "weights", see `make_stack`.
    tensors : dict of str to ndarray
        Those of `suffixes` that are there. The value uses their memory.

    Returns
    -------
    QuantizedWeight, PackedB, InputStatistics or ndarray

    Raises
    ------
    TypeError, ValueError
        They do not fit together.
    """
    if description["kind"] == "array":
        return tensors[""]
    if description["kind"] == "statistics":
        return InputStatistics.from_state({suffix[1:]: tensor for suffix, tensor in tensors.items()})
    memory = _memory(tensors)
    n, k = description["shape"]
    if description["kind"] == "packed_b":
        return _packed_b(memory, (n, k), description)
    return QuantizedWeight.from_memory(
        memory, description["format"], (n, k), layout_of(description["layout"], _core.weight_layout()),
        group_size=description.get("group_size"), scale_dtype=description["scale_dtype"],
        has_zero_points=description["zero_points"], levels=tensors.get(".levels"), window=description.get("window"),
        seed=description.get("seed"), input_scales=tensors.get(".input_scales"))


def _packed_b(memory, shape, description):
    if description["dtype"] not in ("int8", "uint8"):
        raise ValueError(f"dtype: got {description['dtype']!r}, takes int8 or uint8")
    layout = layout_of(description["layout"], _core.b_layout())
    packed = PackedB.of_memory(memory, *shape, np.dtype(description["dtype"]), layout)
    if packed is None:
        raise ValueError("memory: is no packed matrix of this shape and layout")
    return packed if layout == _core.b_layout() else PackedB(packed.unpack(), packed.zero_point)


def _memory(tensors):
    """The packed form, where it can be used."""
    memory = tensors[""]
    if memory.dtype != np.uint8 or memory.ndim != 1:
        raise ValueError(f"got {memory.dtype} {memory.shape}, takes uint8 [bytes]")
    if memory.ctypes.data % safetensors_format.ALIGNMENT == 0:
        return memory
    aligned = _core.aligned_memory(len(memory))  # the file was written by a program that does not align
    aligned[:] = memory
    return aligned


def _check_shape(shape, count):
    if len(shape) != count or not all(type(length) is int and 0 <= length < 2**60 for length in shape):
        raise ValueError(f"shape: takes {count} integers from 0 to 2**60")
    if count == 3 and not shape[0]:
        raise ValueError(f"shape: got {shape}, takes a stack of one or more")
    check_extents(shape, "shape")


# Of each kind: what a description has, what it may have, and the suffixes of its tensors, or of those of each weight.
OF_WEIGHT = (("format", "shape", "scale_dtype", "zero_points", "isa", "layout"), ("group_size", "window", "seed"),
             ("", ".levels", ".input_scales"))
KINDS = {
    "weight": OF_WEIGHT,
    "weights": OF_WEIGHT,
    "packed_b": (("shape", "dtype", "isa", "layout"), (), ("",)),
    "statistics": (("rows", "k"), (), tuple("." + entry for entry in ENTRIES)),
    "array": ((), (), ("",)),
}
TYPES = {"kind": str, "format": str, "shape": list, "scale_dtype": str, "zero_points": bool, "isa": str, "layout": str,
         "group_size": int, "window": int, "seed": int, "dtype": str, "rows": int, "k": int}
