"""quantize on a Dask cluster: the bytes of the local run, also when a worker is killed in the middle."""

import os
import signal
import sys
from concurrent.futures import BrokenExecutor

import checkpoint_cases as cases
import pytest

from qkernels import executors, whole_models

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.any_isa
OPTIONS = ("--format", "int4", "--method", "hqq")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made:
        yield made


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A sharded checkpoint, and the files that come of it locally."""
    folder = tmp_path_factory.mktemp("source")
    model = cases.write_shards(folder / "m", cases.tensors(layers=12, n=96, k=1200))
    cases.finished(cases.command("quantize", model, folder / "out", *OPTIONS))
    return model, cases.files_in(folder / "out")


def test_cluster(tmp_path, source, cluster):
    model, expected = source
    cases.finished(cases.command("quantize", model, tmp_path / "out", *OPTIONS, "--dask", cluster.scheduler_address))
    assert cases.files_in(tmp_path / "out") == expected


def test_a_worker_is_killed(tmp_path, source, cluster):
    model, expected = source
    journal = tmp_path / "out" / "model.safetensors.index.json.journal"
    process = cases.command("quantize", model, tmp_path / "out", *OPTIONS, "--dask", cluster.scheduler_address)
    cases.wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 3)
    with distributed.Client(cluster) as client:
        killed = list(client.run(os.getpid).values())[0]
        os.kill(killed, signal.SIGKILL)
        assert journal.exists() and journal.read_bytes().count(b"\n") < 13  # in the middle
        cases.finished(process)
        assert killed not in client.run(os.getpid).values()
    assert cases.files_in(tmp_path / "out") == expected


def test_a_layer_that_kills_its_workers(tmp_path, source, cluster, monkeypatch):
    """In the end it is given up, and the same call goes on."""
    model, expected = source
    options = {"format": "int4", "group_size": 32, "symmetric": False, "method": "hqq"}

    def quantize():
        with executors.dask_executor(cluster.scheduler_address) as executor:
            whole_models.quantize_checkpoint(model, tmp_path / "out", options=options, executor=executor)

    with monkeypatch.context() as patch, pytest.raises(BrokenExecutor, match="died"):
        patch.setattr(cluster.scheduler, "allowed_failures", 0)
        patch.setattr(whole_models, "quantize_layer", lambda layer: os._exit(1))
        quantize()
    quantize()
    assert cases.files_in(tmp_path / "out") == expected


def test_distributed_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'qkernels\[dask\]'"), executors.dask_executor("x"):
        pass
