"""The official safetensors package and ours: each reads the files of the other, as far as they are the other's."""

import numpy as np
import pytest
from cases import raises
from file_cases import every_kind, with_inputs
from weight_cases import weight

import qkernels
from qkernels import load, safetensors_format, save

pytestmark = pytest.mark.any_isa
official = pytest.importorskip("safetensors.numpy")


def test_it_reads_our_files(tmp_path):
    model = every_kind() | {f"of {dtype}": np.arange(6).astype(dtype) for dtype in safetensors_format.NUMPY.values()}
    del model[f"of {np.dtype(np.complex64)}"]  # which its NumPy side does not know
    path = tmp_path / "model.safetensors"
    save(path, model, metadata={"made": "für Tests"})
    tensors = official.load_file(path)
    for name, value in model.items():
        if isinstance(value, np.ndarray):
            assert (tensors[name].dtype, tensors[name].shape) == (value.dtype, value.shape), name
            assert tensors[name].tobytes() == value.tobytes(), name
        elif isinstance(value, qkernels.QuantizedWeight):
            assert tensors[name].tobytes() == value.packed.memory.tobytes(), name
    assert set(tensors) == set(load(path)._files[""].header.tensors)
    with official.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["made"] == "für Tests" and {"qkernels", "qkernels_checksum"} < metadata.keys()


def test_what_it_saves_again_is_not_taken_for_ours(tmp_path):
    """It does not align tensors, and puts them in an order of its own: with our metadata it would be a changed file."""
    path, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    save(path, {"w": with_inputs(weight(1, 5, 64), seed=1), "bias": np.ones(5, np.float32)})
    with official.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    official.save_file(official.load_file(path), again, metadata)
    text = raises(ValueError, None, load, again)
    assert str(again) in text and "changed by another program" in text
    official.save_file(official.load_file(path), again)
    text = raises(ValueError, None, load, again)
    assert str(again) in text and "not one of qkernels" in text


def test_we_read_the_headers_of_its_files(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {"b": np.ones((2, 3), np.float16), "a": np.zeros((), np.int64), "": np.zeros((0, 4), bool),
               "ü": np.arange(7, dtype=np.uint8)}  # fmt: skip
    official.save_file(tensors, path, {"format": "np"})
    with open(path, "rb") as file:
        header = safetensors_format.read_header(file)
        assert header.metadata == {"format": "np"} and set(header.tensors) == set(tensors)
        for name, (dtype, shape, start, nbytes) in header.tensors.items():
            assert safetensors_format.NUMPY[dtype] == tensors[name].dtype.name and shape == tensors[name].shape
            file.seek(start)
            assert file.read(nbytes) == tensors[name].tobytes()


def test_it_reads_headers_that_we_lay_out(tmp_path):
    path = tmp_path / "model"
    specs = {"w": ("BF16", (3, 2)), "x": ("F8_E4M3", (0,)), "y": ("U8", ())}
    header = safetensors_format.lay_out(specs, {"a": "\"\\\n"})
    path.write_bytes(header.raw + bytes(13))
    with official.safe_open(path, "numpy") as file:
        assert file.metadata() == {"a": "\"\\\n"}
        assert {name: file.get_slice(name).get_shape() for name in file.keys()} == {"w": [3, 2], "x": [0], "y": []}
    with open(path, "rb") as file:
        assert safetensors_format.read_header(file) == header
