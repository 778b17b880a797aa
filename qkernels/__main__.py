"""The command line: ``python -m qkernels info | demo``."""

import argparse
import sys

from . import __version__, demo
from .dispatch import cpu_info


def print_info(_):
    info = cpu_info()
    print(f"qkernels   {__version__}")
    print(f"arch       {info['arch']}")
    for key in ("features", "built", "supported"):
        print(f"{key:<10} {' '.join(info[key])}")
    print(f"selected   {info['selected']}")
    print(f"threads    {info['threads']}")
    print("kernels")
    for slot, isa in info["kernels"].items():
        print(f"  {slot:<24} {isa}")
    return 0


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m qkernels", description="Quantization kernels for CPUs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    info = commands.add_parser("info", help="CPU features, ISAs, threads, and the kernel in each slot")
    info.set_defaults(run=print_info)

    command = commands.add_parser("demo", help="a sentence encoder with int8 linear layers, against float32")
    demo.add_arguments(command)
    command.set_defaults(run=demo.run)

    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
