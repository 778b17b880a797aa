"""Compile the C sources: the only list of compiler flags, per ISA and for the rest.

Used by setup.py, by tests/check/check.py and by the cross builds. Every C file outside ``kernels/<isa>/`` is
compiled for the baseline of the architecture, so that the result starts on its oldest CPU; an ISA whose flags the
compiler does not know is left out.
"""

import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CSRC = Path(__file__).resolve().parent

# No contraction: a*b+c rounds twice on every ISA. No errno and no traps: lets loops over floats be vectorized.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
         "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"]

# What a program or extension module with these sources is linked with.
LIBRARIES = ["-lm", "-pthread"]

_AVX512 = ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni",
           "-mprefer-vector-width=512"]

# isa: (architecture as in the compiler's predefined macros, flags)
ISA_FLAGS = {
    "scalar": (None, []),
    "avx2": ("__x86_64__", ["-mavx2", "-mfma", "-mf16c"]),
    "avxvnni": ("__x86_64__", ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"]),
    "avx512vnni": ("__x86_64__", _AVX512),
    "avx512vbmi": ("__x86_64__", [*_AVX512, "-mavx512vbmi", "-mavx512vbmi2", "-mavx512vpopcntdq", "-mavx512bitalg"]),
    "neon": ("__aarch64__", ["-march=armv8-a"]),
    "neon_dotprod": ("__aarch64__", ["-march=armv8.2-a+dotprod"]),
    "neon_i8mm": ("__aarch64__", ["-march=armv8.2-a+dotprod+i8mm"]),
}

# What dispatches, csrc/*.c, is told of a test build; all else is the same as in any other, for a compiler cache.
DISPATCH_FLAGS = []

if os.environ.get("QKERNELS_AVXVNNI_EVEX"):
    # To test the avxvnni kernels on a CPU that has AVX512-VNNI only: same sources, other encoding of vpdpbusd.
    DISPATCH_FLAGS = ["-DQK_AVXVNNI_EVEX"]
    ISA_FLAGS["avxvnni"] = ("__x86_64__", [*ISA_FLAGS["avx2"][1], "-mavx512f", "-mavx512vl", "-mavx512vnni",
                                           "-DQK_AVXVNNI_EVEX"])

if os.environ.get("QKERNELS_EMULATE_AVX512"):
    # To test the AVX-512 and AVX-VNNI kernels on a CPU that has AVX2 only: SIMDe (Debian: libsimde-dev) computes what the
    # instructions would. -O1: each of them becomes a dozen, and the unrolled kernels would take minutes to compile.
    DISPATCH_FLAGS = ["-DQK_EMULATED_AVX512"]
    for _isa in ("avxvnni", "avx512vnni", "avx512vbmi"):
        ISA_FLAGS[_isa] = ("__x86_64__", [*ISA_FLAGS["avx2"][1], "-O1", "-Wno-psabi", "-DQK_AVXVNNI_EVEX",
                                          f"-I{CSRC.parent / 'tests' / 'simde'}"])


def _accepts(cc, flags):
    """Whether the compiler takes these flags."""
    command = [*cc, *flags, "-Werror", "-x", "c", "-fsyntax-only", "-"]
    return subprocess.run(command, input=b"int x;", capture_output=True).returncode == 0


def _architecture(cc):
    """The predefined macros of the target, as a set of names."""
    output = subprocess.run([*cc, "-dM", "-E", "-x", "c", "-"], input=b"", capture_output=True, check=True).stdout
    return {line.split()[1] for line in output.decode().splitlines() if line.startswith("#define ")}


def built_isas(cc):
    """The ISAs that this compiler can build for its target, in the order of isa.def."""
    macros = _architecture(cc)
    return [isa for isa, (arch, flags) in ISA_FLAGS.items()
            if (arch is None or arch in macros) and _accepts(cc, flags)]


def common_flags(cc):
    """What every C file of the project is compiled with, the tests' too: flags, built ISAs, include folders."""
    isas = built_isas(cc)
    built = [f"-DQK_BUILT_{isa.upper()}={int(isa in isas)}" for isa in ISA_FLAGS if isa != "scalar"]
    return [*FLAGS, *built, f"-I{CSRC}", f"-I{CSRC / 'include'}"]


def compile_all(cc, out_dir, extra_flags=()):
    """Compile all C sources to objects, each with the flags of its folder.

    Parameters
    ----------
    cc, out_dir, extra_flags
        As those of `compile_units`.

    Returns
    -------
    list of str
        The objects.
    """
    cc = shlex.split(cc) if isinstance(cc, str) else list(cc)
    units = [(source, DISPATCH_FLAGS) for source in sorted(CSRC.glob("*.c"))]
    units += [(source, []) for source in sorted(CSRC.glob("ops/*.c"))]
    units += [(source, ISA_FLAGS[isa][1]) for isa in built_isas(cc) for source in sorted(CSRC.glob(f"kernels/{isa}/*.c"))]
    return compile_units(cc, out_dir, units, extra_flags)


def compile_units(cc, out_dir, units, extra_flags=()):
    """Compile C files of the project to objects, several at a time.

    Parameters
    ----------
    cc : list of str
        The compiler command, with its own flags.
    out_dir : path
        Where the objects go, in folders named like those of the sources.
    units : sequence of (Path, list of str)
        Files, and the flags of each.
    extra_flags : sequence of str
        Added to every command, after the flags of this file.

    Returns
    -------
    list of str
        The objects.
    """
    out_dir = Path(out_dir)
    flags = common_flags(cc)

    def compile_unit(unit):
        source, isa_flags = unit
        target = (out_dir / source.relative_to(CSRC.parent)).with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [*cc, *flags, *isa_flags, *extra_flags, "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
        return str(target)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_unit, units))
