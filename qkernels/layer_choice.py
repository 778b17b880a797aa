"""Which tensors of a checkpoint are quantized, and why others stay as they are."""

from fnmatch import fnmatchcase
from typing import NamedTuple

from .checkpoint import FLOATS, SourceTensor
from .kept_names import why_kept
from .plans import Plan
from .sensitivity import checked_candidate

INCLUDED = ("*.weight",)
STACKS = ("*experts*", "*.input_linear.weight", "*.output_linear.weight")  # names of the weights of experts, 3-D
EXCLUDED = "excluded by "


class Kept(NamedTuple):
    """A tensor that stays as it is, and why."""

    source: SourceTensor
    why: str


def chosen_layers(source, options, plan, include, exclude):
    """The options of each layer that is quantized, and what is kept."""
    if (options is None) == (plan is None):
        raise ValueError("options, plan: takes one of them")
    if plan is not None and not isinstance(plan, Plan):
        raise TypeError(f"plan: got {type(plan).__name__}, takes a Plan")
    for name, patterns in [("include", include), ("exclude", exclude)]:
        if isinstance(patterns, str):
            raise TypeError(f"{name}: got {patterns!r}, takes a list of patterns")
    planned = {}
    for name, of_layer in (plan.layers if plan else {}).items():
        full = name if name in source.tensors else name + ".weight"
        if full not in source.tensors:
            raise ValueError(f"plan: {name}: {source.path} has no such layer")
        why = _unfit(source.tensors[full].tensor)
        if why:
            raise ValueError(f"plan: {name}: cannot be quantized, it is {why}")
        if full in planned:
            raise ValueError(f"plan: {full} is there twice, with and without .weight")
        planned[full] = of_layer
    options = None if options is None else checked_candidate(options, "options")
    include, exclude = None if include is None else _Patterns(include), _Patterns(exclude)
    layers, kept = {}, {}
    for name, tensor in source.tensors.items():
        why = _unfit(tensor.tensor)
        if plan is not None:
            why = why or (None if name in planned else "not in the plan")
        else:
            why = why or _filtered(name, len(tensor.tensor.shape) == 3, include, exclude)
        if why:
            kept[name] = Kept(tensor, why)
        else:
            layers[name] = planned.get(name, options)
    return layers, kept


def of_most_bytes(source, kept):
    """A warning where most of a checkpoint stays as it is, which nobody asked for."""
    total = sum(tensor.nbytes for _, tensor in source.tensors.values())
    unasked = sum(tensor.nbytes for (_, tensor), why in kept.values() if not why.startswith(EXCLUDED))
    if 2 * unasked <= total:
        return []
    share = f"{100 * unasked / total:.0f} %"
    return [f"{source.path}: {share} of the bytes stay as they are; --dry-run and reports say why"]


def _unfit(tensor):
    """Why a tensor cannot be the weight of a linear layer, or a stack of such, or None."""
    if len(tensor.shape) not in (2, 3):
        return f"{len(tensor.shape)}-D"
    if tensor.dtype not in FLOATS:
        return f"of dtype {tensor.dtype}"
    return f"empty, {' x '.join(map(str, tensor.shape))}" if 0 in tensor.shape else None


class _Patterns:
    """Patterns as in `fnmatch`, of which each fits itself, too. There may be thousands, names of layers most of them."""

    def __init__(self, patterns):
        self._names = set(patterns)
        self._others = [pattern for pattern in patterns if set(pattern) & set("*?[")]

    def fitting(self, name):
        """One that fits, or None."""
        if name in self._names:
            return name
        return next((pattern for pattern in self._others if fnmatchcase(name, pattern)), None)

    def __contains__(self, name):
        return name in self._names


def _filtered(name, is_stack, include, exclude):
    """Why a weight of this name, or a stack of weights, is not to be quantized, or None; include may be None."""
    pattern = exclude.fitting(name)
    if pattern is not None:
        return EXCLUDED + pattern
    if include is not None and name in include:
        return None
    default = _Patterns(STACKS if is_stack else INCLUDED)
    if is_stack and not default.fitting(name):
        return "3-D, and no stack of experts by its name"
    if not (default if include is None else include).fitting(name):
        return "not included"
    if name.endswith("bias"):
        return "a bias by its name"
    return why_kept(name) if include is None else None
