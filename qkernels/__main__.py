"""The command line: ``python -m qkernels info | demo | quantize | inspect | bench``."""

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path

from . import __path__, __version__
from .console import ending_quietly
from .dispatch import cpu_info


def print_info(_):
    info = cpu_info()
    print(f"qkernels   {__version__}")
    print(f"arch       {info['arch']}")
    for key in ("features", "built", "supported"):
        print(f"{key:<10} {' '.join(info[key])}")
    if info["emulated"]:
        print(f"emulated   {' '.join(info['emulated'])}: a build for tests, slow")
    print(f"selected   {info['selected']}")
    print(f"threads    {info['threads']}")
    print("kernels")
    for slot, isa in info["kernels"].items():
        print(f"  {slot:<24} {isa}")
    return 0


def bench_module():
    """The benchmark: a sub-package where qkernels is installed; in a checkout its folder lies beside the package."""
    if importlib.util.find_spec("qkernels.bench") is None:
        __path__.append(str(Path(__file__).resolve().parents[1]))
    return importlib.import_module("qkernels.bench.cli")


# The commands with modules of their own, each imported when it is asked for: others would cost more time than a start takes.
COMMANDS = {
    "demo": ("a sentence encoder with quantized linear layers, against float32", "demo"),
    "quantize": ("a checkpoint of any size to a file of quantized weights", "quantize_command"),
    "inspect": ("what a file of quantized weights holds", "inspect_command"),
    "bench": ("low-bit products against other libraries and the machine's limits", None),
}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m qkernels", description="Quantization kernels for CPUs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    info = commands.add_parser("info", help="CPU features, ISAs, threads, and the kernel in each slot")
    info.set_defaults(run=print_info)
    for name, (purpose, module) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        if name in argv:
            module = bench_module() if module is None else importlib.import_module(f"{__package__}.{module}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(ending_quietly(main))
