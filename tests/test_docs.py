"""The examples in README.md and in docstrings run and give what they say."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import pytest

import qkernels

README = pathlib.Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
MODULES = [
    "qkernels", "qkernels.affine", "qkernels.allocation", "qkernels.binary", "qkernels.codebook", "qkernels.decibels",
    "qkernels.files",
    "qkernels.gemm", "qkernels.hadamard", "qkernels.histogram_observer", "qkernels.layers", "qkernels.mixed",
    "qkernels.observers", "qkernels.packing", "qkernels.plans", "qkernels.qat", "qkernels.qparams",
    "qkernels.quantizers", "qkernels.report_chart", "qkernels.report_page", "qkernels.report_text",
    "qkernels.sensitivity", "qkernels.static", "qkernels.statistics", "qkernels.threads", "qkernels.trellis",
    "qkernels.weight_stack", "qkernels.weights", "qkernels.whole_models",
]


def run_examples(text, names, title):
    """Run the >>> lines of a text; the number of examples."""
    test = doctest.DocTestParser().get_doctest(text, names, title, str(README), 0)
    result = doctest.DocTestRunner().run(test, clear_globs=False)
    assert result.failed == 0, f"{title}: {result.failed} of {result.attempted} examples failed"
    names.update(test.globs)
    return result.attempted


def test_readme():
    """Blocks run one after another in one namespace; blocks with >>> are compared as doctests."""
    blocks = BLOCK.findall(README.read_text(encoding="utf-8"))
    names, examples = {}, 0
    for i, block in enumerate(blocks):
        title = f"README.md, python block {i + 1}"
        if ">>>" in block:
            examples += run_examples(block, names, title)
        else:
            exec(compile(block, title, "exec"), names)
    together = "\n".join(blocks)
    assert "int8_gemm" in together
    assert examples > 0 and all(text in together for text in ("0.0235", "128", "3.01"))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples():
    attempted = [doctest.testmod(importlib.import_module(name)).attempted for name in MODULES]
    assert sum(attempted) >= 6


def test_every_public_function_is_documented():
    public = [name for name in dir(qkernels) if not name.startswith("_")]
    modules = {module.name for module in pkgutil.iter_modules(qkernels.__path__)}
    functions = [name for name in public if callable(getattr(qkernels, name))]
    assert {"quantize", "pack", "int8_gemm", "linear", "cpu_info"} <= set(functions)
    assert set(public) - set(functions) <= modules | {"ref"}
    for name in functions:
        text = inspect.getdoc(getattr(qkernels, name)) or ""
        assert len(text) > 20, name
        if inspect.isfunction(getattr(qkernels, name)):
            takes_any = bool(inspect.signature(getattr(qkernels, name)).parameters)
            assert ("Parameters\n" in text) == takes_any, name
            assert "Returns\n" in text or "Yields\n" in text or name.startswith(("save", "set_")), name
