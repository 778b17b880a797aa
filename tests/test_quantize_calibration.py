"""quantize with a file of statistics: how its entries are found, and that the work on a layer does not grow with them."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import checkpoint_cases as cases
import numpy as np
import pytest
from file_cases import assert_same_value, every_kind

import qkernels
from qkernels import safetensors_format
from qkernels.calibration import InputStatistics
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa
GPTQ = {"format": "int4", "group_size": 32, "method": "gptq"}
K = 64


def seen(rows, seed=0):
    return InputStatistics(K).observe(np.random.default_rng(seed).normal(size=(rows, K)).astype(np.float32))


def quantize(folder, arrays, statistics, options=GPTQ, **others):
    """The report; the result is folder / out.safetensors."""
    model = cases.write(folder / "m.safetensors", arrays)
    qkernels.save(folder / "seen", statistics)
    with ThreadPoolExecutor(1) as threads:
        return quantize_checkpoint(model, folder / "out.safetensors", options=options, calibration=folder / "seen",
                                   executor=threads, **others)


def test_headers_are_read_once(tmp_path, monkeypatch):
    """Not for each layer: a header is as long as there are layers."""
    read, original = [], safetensors_format.read_header

    def counted(file):
        read.append(file.name)
        return original(file)

    monkeypatch.setattr(safetensors_format, "read_header", counted)
    counts = []
    for layers in (1, 9):
        read.clear()
        names = [f"experts.{i}.weight" for i in range(layers)]
        quantize(tmp_path, {name: np.eye(32, K, dtype=np.float32) for name in names}, dict.fromkeys(names, seen(40)))
        counts.append(len(read))
    assert counts[0] == counts[1] <= 4


def test_an_entry_by_its_place(tmp_path):
    """Of every kind, in another process, with the checksums compared there."""
    path, want = tmp_path / "model", every_kind()
    qkernels.save(path, want)
    model = qkernels.load(path, verify=False)
    places = {name: pickle.loads(pickle.dumps(model.place(name))) for name in model}
    for name, value in want.items():
        assert_same_value(places[name].value(), value, name)
        assert places[name].tensors.keys() == places[name].checksums.keys()
    raw = bytearray(path.read_bytes())
    raw[places["seen"].tensors["seen.products"].start] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"model: seen.products: is damaged"):
        places["seen"].value()
    assert_same_value(places["bias"].value(), want["bias"])
    path.write_bytes(raw[:-1])
    with pytest.raises(ValueError, match="model: was changed in the meantime"):
        places["bias"].value()
    path.unlink()
    with pytest.raises(OSError, match="model"):
        places["bias"].value()
