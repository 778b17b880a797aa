"""``python -m qkernels inspect``: what a file of quantized weights holds."""

import json
import math
import sys

from . import _core, entries, files
from .console import one_line, print_rows, printable, warnings_as_lines
from .sensitivity import label


def add_arguments(parser):
    """Add the command's options to a parser."""
    parser.description = "Shows what is inside a file of qkernels.save or of python -m qkernels quantize."
    add = parser.add_argument
    add("file", metavar="FILE", help="a file of quantized weights, the index of several, or the folder of one")
    add("--json", action="store_true", help="as JSON")
    add("--verify", action="store_true", help="read everything and compare it with its checksums")


def run(args):
    """Run the command with parsed arguments and return the exit code."""
    try:
        with warnings_as_lines(_say):
            model = files.load(args.file)
        if args.verify:
            model.verify_all()
        found = contents(model)
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}")
        return 2
    except ValueError as error:
        _say(str(error))
        return 2
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    print_rows(("name", "what", "shape", "bytes", "bits", "layout"),
               [(entry["name"], entry["what"], " x ".join(map(str, entry["shape"])), entry["bytes"], entry["bits"],
                 _layout(entry)) for entry in found["entries"]])
    for name, text in found["metadata"].items():
        print(printable(one_line(f"{name}: {text}")))
    print(f"{len(found['entries'])} entries, {found['bytes']:,} bytes" + (", undamaged" if args.verify else ""))
    return 0


def _say(line):
    print(f"qkernels inspect: {one_line(line)}", file=sys.stderr)


def contents(model):
    """What `inspect` shows of a QuantizedModel.

    Parameters
    ----------
    model : QuantizedModel

    Returns
    -------
    dict
        "metadata"; "bytes" of the files; and "entries", for each "name", "what" (kind, or options of a weight),
        "shape", "bytes" (in the file, the padding of a packed form included), "bits" (for each value; of a weight
        `QuantizedWeight.bits_per_weight`, padding apart), and of packed forms "layout", "isa" (for which it was packed) and
        "mapped", whether the selected ISA uses it as it lies; None of others.
    """
    listed = []
    for name, description in model.descriptions.items():
        parts = model.parts(name)
        nbytes = sum(part.nbytes for part in parts.values())
        what, shape, portable = description["kind"], description.get("shape"), nbytes
        if what in ("weight", "weights"):
            try:
                portable = entries.state_bytes_of(description, {suffix: part.shape for suffix, part in parts.items()})
            except ValueError as error:
                raise ValueError(f"{model.path}: {name}: {error}") from None
            is_scaled = any(suffix.endswith(".input_scales") for suffix in parts)
            what = label(_options(description) | ({"method": "awq"} if is_scaled else {}))
        elif what == "array":
            what, shape = parts[""].dtype, list(parts[""].shape)
        elif what == "statistics":
            what, shape = f"statistics of {description['rows']:,} rows", [description["k"]]
        own = {"weight": _core.weight_layout, "weights": _core.weight_layout, "packed_b": _core.b_layout}.get(
            description["kind"])
        listed.append({"name": name, "what": what, "shape": shape, "bytes": nbytes,
                       "bits": 8 * portable / max(math.prod(shape), 1), "layout": description.get("layout"),
                       "isa": description.get("isa"),
                       "mapped": own and description["layout"] == entries.layout_id(own())})
    return {"metadata": model.metadata, "bytes": model.nbytes, "entries": listed}


def _layout(entry):
    if entry["layout"] is None:
        return ""
    return f"{entry['layout']} ({entry['isa']}), " + ("used as it lies" if entry["mapped"] else "packed anew here")


def _options(description):
    """Of a weight, as `label` takes them."""
    options = {name: description[name] for name in ("format", "group_size", "window") if name in description}
    if description["zero_points"]:
        options["symmetric"] = False
    if "seed" in description:
        options["rotate"] = True
    return options
