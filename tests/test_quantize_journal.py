"""The journal and the partial files of python -m qkernels quantize: what lies in their place, and what is damaged."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor

import checkpoint_cases as cases
import pytest

from qkernels import journal as journals
from qkernels import quantize_layer, whole_models
from qkernels.conversion import Conversion
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa
LAYERS = {f"layers.{i}.weight": cases.INT4 for i in range(3)}


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


class Job:
    """A checkpoint, and paths of what is made of it."""

    def __init__(self, folder):
        self.arrays = cases.tensors(layers=3)
        self.folder, self.model = folder, cases.write(folder / "m.safetensors", self.arrays)
        self.out, self.journal = folder / "out.safetensors", folder / "out.safetensors.journal"
        conversion = Conversion(self.model, self.out, cases.INT4, None, None, (), None)
        self.fingerprint, self.nbytes = conversion.fingerprint(), conversion.files[0].nbytes
        self.partial, = conversion.partial_paths(self.fingerprint).values()

    def run(self):
        said = []
        with ThreadPoolExecutor(1) as threads:
            quantize_checkpoint(self.model, self.out, options=cases.INT4, executor=threads, say=said.append)
        return said

    def assert_in_the_way(self, path, message):
        before = cases.files_in(self.folder), sorted(self.folder.iterdir())
        with pytest.raises(OSError, match=f"^{path}: is in the way: {message}"):
            self.run()
        assert (cases.files_in(self.folder), sorted(self.folder.iterdir())) == before

    def assert_done(self):
        cases.assert_quantized(self.out, self.arrays, LAYERS)
        assert not self.journal.exists() and not self.partial.exists()


@pytest.mark.parametrize("text", [
    "my diary\n", "my diary", "\n", " ", '{"job":"0123"}\n', '{"job":"0123456789abcdef","version":2}\n', "{}\n", "[]\n",
    '{"job":3}\n', '{"version":2,"job":"0123456789abcdef"}\n', '{"job":"0123456789ABCDEF"}\n', "x" * 10**6,
])
def test_a_file_of_the_user(job, text):
    """Nor one of another version is forgotten."""
    job.journal.write_text(text)
    job.assert_in_the_way(job.journal, "no journal of python -m qkernels quantize, or one of another version")


@pytest.mark.parametrize("name", ["journal", "partial"])
def test_links_folders_and_pipes(job, name):
    path, theirs = getattr(job, name), job.folder / "precious"
    if name == "partial":
        job.journal.write_text('{"job":"%s"}\n' % job.fingerprint)
    theirs.write_text('{"job":"%s"}\n' % job.fingerprint)
    (job.folder / "other").mkdir()
    for target in (theirs, job.folder / "nothing", job.folder / "other"):
        path.symlink_to(target)
        job.assert_in_the_way(path, "a symbolic link" if name == "journal" else "no regular file")
        path.unlink()
    os.link(theirs, path)
    job.assert_in_the_way(path, "a file with other names")
    path.unlink()
    os.mkfifo(path)
    job.assert_in_the_way(path, "no regular file")
    path.unlink()
    path.mkdir()
    job.assert_in_the_way(path, "Is a directory" if name == "journal" else "no regular file")
    path.rmdir()
    job.run()
    job.assert_done()


@pytest.mark.parametrize("journal", ["", '{"job":"0123456789abcdef"}\n', None])
def test_a_partial_file_that_no_journal_tells_of(job, journal):
    if journal is not None:
        job.journal.write_text(journal)
    job.partial.write_bytes(b"precious")
    if journal == "":
        with pytest.raises(OSError, match="is in the way: of no job"):
            job.run()
        assert job.partial.read_bytes() == b"precious"
    else:
        job.assert_in_the_way(job.partial, f"of no job that {job.journal} tells of")
    job.partial.unlink()
    job.run()
    job.assert_done()


def test_what_another_job_has_left(job):
    """Its partial files are removed; those of the same job for another output, or of no job, are not."""
    names = [f"{name}.{digits}.partial" for digits in ("0123456789abcdef", "0" * 16)
             for name in ("out.safetensors", "x")]
    for name in names:
        (job.folder / name).write_text("precious")
    job.journal.write_text('{"job":"0123456789abcdef"}\n{"layer":"x"}\n')
    line, = job.run()
    assert "is of another job" in line
    job.assert_done()
    assert sorted(path.name for path in job.folder.glob("*.partial")) == sorted(names[1:])


@pytest.mark.parametrize("torn", [b"", b"{", b'{"job":', b'{"job":"0123', b'{"job":"0123456789abcdef"}'])
def test_a_first_line_torn_by_a_power_cut(job, torn):
    job.journal.write_bytes(torn)
    assert job.run() == []
    job.assert_done()


DAMAGED = [
    5, None, "x", [], {}, {"layer": "layers.0.weight"},
    {"layer": "none", "checksums": {"": ""}, "sqnr": 1, "seconds": 1},
    {"layer": ["x"], "checksums": {}, "sqnr": 0, "seconds": 0}, {"sealed": 3}, {"sealed": []}, {"sealed": [1, 2]},
    {"job": "*"}, {"job": "../x"}, {"job": 3}, {"job": ""},
    {"sealed": [None]}, {"sealed": [{}]}, {"sealed": "00000000"},
    *({"layer": "layers.0.weight", "checksums": {"": "00"}, "sqnr": 1.0, "seconds": 1.0} | change for change in [
        {"checksums": 3}, {"checksums": {}}, {"checksums": {"bad": "00"}}, {"checksums": {"": 3}},
        {"checksums": {"": "zz"}}, {"sqnr": "x"}, {"sqnr": float("nan")}, {"sqnr": True}, {"seconds": None},
        {"seconds": "1"}, {"seconds": float("inf")}, {"layer": 3}, {"more": 1}]),
]


@pytest.mark.parametrize("line", [*map(json.dumps, DAMAGED), "[" * 100_000, '{"a":' * 100_000, "\ufffd", "{'a'}",
                                  "9" * 5000], ids=lambda line: ascii(line[:50]))
def test_damaged_lines(job, line):
    """They say nothing: the layers are done anew, and the figures are those of the work."""
    job.partial.write_bytes(bytes(job.nbytes))
    job.journal.write_text('{"job":"%s"}\n%s\n' % (job.fingerprint, line))
    assert job.run() in ([], ["0 of 3 layers are done already: goes on"])
    job.assert_done()


def test_a_line_that_finds_no_space(job, monkeypatch):
    """No half of it stays, so that what follows counts; nor does a journal of no lines."""
    write, full = os.write, []

    def filling(descriptor, data):
        if b"layers.1" not in data and len(full) != 0:
            return write(descriptor, data)
        full.append(write(descriptor, data[:10]))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journals.os, "write", filling)
        with pytest.raises(OSError, match=f"^{job.journal}: No space left on device$"):
            job.run()
        assert [path.name for path in job.folder.iterdir()] == ["m.safetensors"]
        with pytest.raises(OSError, match=f"{job.journal}: No space left on device$"):
            job.run()
    for line in job.journal.read_text().splitlines():
        json.loads(line)
    names = []
    monkeypatch.setattr(whole_models, "quantize_layer",
                        lambda layer: names.append(layer.name) or quantize_layer.quantize_layer(layer))
    job.run()
    assert set(full) == {10} and "layers.1.weight" in names and len(names) < 3
    job.assert_done()
