"""Build the extension: Cython for the binding, csrc/build.py for the C sources and their per-ISA flags."""

import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402


NO_DEBUG_INFORMATION = "-g0"  # Python's own flags ask for it; of unrolled kernels it is ten times their code


class BuildExtension(build_ext):
    """Link the objects of csrc/build.py, each compiled with its own flags, into the extension."""

    def build_extension(self, extension):
        extension.extra_objects = build.compile_all(
            self.compiler.compiler_so, Path(self.build_temp), [NO_DEBUG_INFORMATION])
        super().build_extension(extension)
        # `python -m qkernels` in a checkout imports the package of the current folder: give that one its extension, too.
        if not self.inplace and not self.editable_mode:
            self.copy_file(self.get_ext_fullpath(extension.name), str(ROOT / "qkernels"))


core = Extension(
    "qkernels._core",
    sources=["qkernels/_core.pyx"],
    include_dirs=[str(ROOT / "csrc" / "include"), numpy.get_include()],
    extra_compile_args=["-fvisibility=hidden", NO_DEBUG_INFORMATION],
    extra_link_args=build.LIBRARIES,
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    depends=[str(path) for path in (ROOT / "csrc").rglob("*") if path.suffix in {".c", ".h", ".def", ".py"}],
)

setup(
    ext_modules=cythonize([core], include_path=["qkernels"], language_level=3),
    cmdclass={"build_ext": BuildExtension},
)
