#!/usr/bin/env python3
"""Check every kernel of csrc/kernels.def, or the thread pool: build the C harness of this folder with them, and run it.

Each kernel that this CPU supports is compared with the scalar one, and the scalar ones with plain definitions, over
sizes around every tile, extreme and random data, and buffers that end, then start, at a page that may not be touched.
The last line is "N passed, N failed"; the exit code is 0 when nothing failed.

examples:
  check.py                                  everything that this machine can run
  check.py --isa avx2 --op 'gemm*'          one ISA, some slots
  check.py --sanitize --cc clang            with AddressSanitizer and UndefinedBehaviorSanitizer
  check.py --bench --smoke                  times, after a quick check
  check.py --threads --sanitize thread      the thread pool under stress, with ThreadSanitizer
  QKERNELS_AVXVNNI_EVEX=1 check.py --isa avxvnni
                                            the avxvnni kernels on a CPU that has AVX512-VNNI only
  QKERNELS_EMULATE_AVX512=1 check.py        the AVX-512 and AVX-VNNI kernels, too, on one that has AVX2 only
  check.py --cc aarch64-linux-gnu-gcc --runner 'qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu max'
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
sys.path.insert(0, str(CSRC))
import build  # noqa: E402


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_argument_group("what to check")
    choice.add_argument("--isa", help="only the kernels of this ISA; it is an error if they cannot run here")
    choice.add_argument("--op", metavar="PATTERN", help="only slots whose name matches, as in 'gemm*'")
    choice.add_argument("--seed", type=int, metavar="N", help="of the random data (default 1)")
    choice.add_argument("--smoke", action="store_true", help="one case in 13: a few seconds, also under emulation")
    choice.add_argument("--long", action="store_true",
                        help="every shape with all data, where otherwise the data of long products take turns")
    choice.add_argument("--side", choices=["end", "start"],
                        help="only buffers that end, or start, at a guard page; qemu's vmaskmov reads lanes that "
                             "are masked off, so that AVX2 kernels under it need --side start")
    choice.add_argument("--threads", action="store_true", help="the thread pool instead of the kernels")
    choice.add_argument("--bench", action="store_true", help="then time what passed")
    how = parser.add_argument_group("how to build and run")
    how.add_argument("--cc", default=os.environ.get("CC", "cc"), metavar="'CC FLAGS'",
                     help="compiler command (default: $CC or cc)")
    how.add_argument("--sanitize", nargs="?", const="address,undefined", metavar="KINDS",
                     help="build with -fsanitize=KINDS (default: %(const)s)")
    how.add_argument("--build", type=Path, metavar="DIR", help="keep objects and program here")
    how.add_argument("--objects", type=Path, metavar="DIR",
                     help="check objects that were compiled before, as setup.py leaves them in build/temp.*")
    how.add_argument("--runner", default="", metavar="COMMAND", help="command that runs the program, such as qemu")
    return parser.parse_args()


def build_program(cc, out_dir, extra_flags, threads, objects):
    """Compile csrc, unless there are objects of it, and the harness, or just the thread pool and its own, and link them.

    Returns
    -------
    pathlib.Path
        The program.
    """
    flags = [*build.common_flags(cc), *extra_flags]
    if threads:
        sources = [CSRC / name for name in ("threads.c", "interrupt.c", "floating_mode.c")]
        program, parts = out_dir / "check_threads", [*sources, *HERE.glob("threads/*.c")]
    else:
        parts = objects.rglob("csrc/**/*.o") if objects else build.compile_all(cc, out_dir, extra_flags)
        harness = [(source, []) for source in sorted(HERE.glob("*.c"))]
        program, parts = out_dir / "check", [*parts, *build.compile_units(cc, out_dir, harness, extra_flags)]
    subprocess.run([*cc, *flags, *map(str, parts), *build.LIBRARIES, "-o", str(program)], check=True)
    return program


def main():
    args = parse_arguments()
    options = []
    for name in ("isa", "op", "seed", "side"):
        if getattr(args, name) is not None:
            options += [f"--{name}", str(getattr(args, name))]
    options += [f"--{name}" for name in ("smoke", "long", "bench") if getattr(args, name)]
    sanitize = [f"-fsanitize={args.sanitize}", "-fno-sanitize-recover=all", "-g1", "-O1"] if args.sanitize else []

    with tempfile.TemporaryDirectory(prefix="qkernels-check-") as temporary:
        out_dir = args.build or Path(temporary)
        out_dir.mkdir(parents=True, exist_ok=True)
        try:
            program = build_program(shlex.split(args.cc), out_dir, sanitize, args.threads, args.objects)
        except subprocess.CalledProcessError as error:
            print(f"check.py: the build failed: {shlex.join(error.cmd)}", file=sys.stderr)
            return 1
        except FileNotFoundError as error:
            print(f"check.py: no such compiler: {error.filename}", file=sys.stderr)
            return 1
        code = subprocess.run([*shlex.split(args.runner), str(program), *options]).returncode
    return code if code >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
