"""Models of the demo in files, without the real model: saved, mapped, and used with no copy of the weights."""

import os
import subprocess
import sys

import numpy as np
import pytest
from test_demo import CONFIG, IDS, tensors  # noqa: F401  (a fixture)

import qkernels
from qkernels import demo_model
from qkernels.__main__ import main
from qkernels.demo_linears import DEFAULTS, MIXED, STATIC_INT8, Float32Linear, Scheme
from qkernels.demo_sentences import DemoError
from qkernels.minilm import Encoder

pytestmark = pytest.mark.any_isa

# Of the smallest machines: what a process does that starts, maps a model and computes one embedding.
ONE_EMBEDDING = """
import json, sys, tracemalloc
import numpy as np, qkernels
from qkernels.demo_model import encoder_of
tracemalloc.start()
encoder = encoder_of(qkernels.load(sys.argv[1]), json.loads(sys.argv[2]), "int8")
encoder([[1, 5, 9, 3, 2]])
np.save(sys.argv[3], encoder([[1, 5, 9, 3, 2]]))
print(tracemalloc.get_traced_memory()[1])
"""


def encoder_with(tensors, scheme, first=None):  # noqa: F811
    """The tiny encoder; its first layer as another scheme has it, if one is given."""
    encoder = Encoder(tensors, CONFIG, scheme.make_linear)
    if first is not None:
        name = next(iter(encoder.linears))
        encoder.linears[name] = first.make_linear(tensors[name + ".weight"], tensors[name + ".bias"])
    return encoder


@pytest.mark.parametrize("scheme, first, expected", [
    (DEFAULTS["int8"], None, DEFAULTS["int8"]),
    (DEFAULTS["int4"], None, DEFAULTS["int4"]),
    (DEFAULTS["trellis3"]._replace(window=12), None, DEFAULTS["trellis3"]._replace(window=12)),
    (DEFAULTS["int4"]._replace(method="hqq"), None, DEFAULTS["int4"]),  # how codes were found is no longer known
    (DEFAULTS["nf4"], DEFAULTS["int8"], None),
])
def test_a_saved_model_encodes_alike(tensors, tmp_path, scheme, first, expected):  # noqa: F811
    made, path = encoder_with(tensors, scheme, first), tmp_path / "model.safetensors"
    qkernels.save(path, demo_model.tensors_of(made))
    encoder = demo_model.encoder_of(demo_model.open_model(path, tensors), CONFIG, "int8")
    assert encoder(IDS).tobytes() == made(IDS).tobytes()
    expected = expected or Scheme(MIXED, None, True, "int8", plan=str(path))
    assert demo_model.scheme_of(encoder, "int8", str(path)) == expected


def test_layers_left_in_float32(tensors, tmp_path):  # noqa: F811
    path = tmp_path / "model.safetensors"
    qkernels.save(path, tensors)
    encoder = demo_model.encoder_of(demo_model.open_model(path, tensors), CONFIG, "float32")
    assert encoder(IDS).tobytes() == Encoder(tensors, CONFIG, Float32Linear)(IDS).tobytes()
    assert demo_model.scheme_of(encoder, "float32", "here").plan == "here"


def test_files_that_are_no_such_model(tensors, tmp_path, capsys):  # noqa: F811
    name = "encoder.layer.1.output.dense.weight"
    for change, text in [({name: None}, f"it lacks {name}"), ({name: np.zeros((32, 64), np.float32)}, r"\(32, 64\)")]:
        held = {key: value for key, value in {**tensors, **change}.items() if value is not None}
        qkernels.save(tmp_path / "other.safetensors", held)
        with pytest.raises(DemoError, match=text):
            demo_model.open_model(tmp_path / "other.safetensors", tensors)
    (tmp_path / "text").write_text("no model, but some text")
    for path, text in [("text", "safetensors"), ("nothing", "No such file")]:
        with pytest.raises(DemoError, match=text):
            demo_model.open_model(tmp_path / path, tensors)


def test_static_layers_are_not_saved(tensors):  # noqa: F811
    encoder = Encoder(tensors, CONFIG, lambda weight, bias: STATIC_INT8)
    with pytest.raises(DemoError, match="static"):
        demo_model.tensors_of(encoder)


@pytest.mark.parametrize("arguments", [
    ["--model", "x", "--weights", "int4"], ["--model", "x", "--plan", "p"], ["--model", "x", "--save-model", "y"],
    ["--compare", "--model", "x"], ["--compare", "--save-model", "x"], ["--static", "--save-model", "x"],
])
def test_options_that_do_not_go_together(capsys, arguments):
    assert main(["demo", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "leave out" in err


def test_one_embedding_on_one_thread_copies_no_weights(tensors, tmp_path):  # noqa: F811
    """Weights of 2.5 MB, activations of less than 50 kB, and the memory that Python needs for 36 names."""
    wide = {**tensors, "embeddings.word_embeddings.weight": np.resize(
        tensors["embeddings.word_embeddings.weight"], (20000, 32))}
    made, path, vectors = encoder_with(wide, DEFAULTS["int4"]), tmp_path / "model.safetensors", tmp_path / "v.npy"
    qkernels.save(path, demo_model.tensors_of(made))
    environment = os.environ | {"QKERNELS_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    config = str(CONFIG).replace("'", '"')
    done = subprocess.run([sys.executable, "-c", ONE_EMBEDDING, path, config, vectors], env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.load(vectors).tobytes() == made(IDS[:1]).tobytes()
    assert path.stat().st_size > 2_500_000
    assert int(done.stdout) < 400_000
