"""``python -m qkernels quantize``: the linear layers of a checkpoint, quantized into a file that is used as it lies."""

import argparse
import contextlib
import sys
import time
from concurrent.futures import BrokenExecutor

from . import _core, executors, formats, kept_names
from ._files import check_results, results_of, write_json
from .console import one_line, print_rows, printable, warnings_as_lines
from .conversion import Conversion
from .decibels import ratio
from .demo_linears import DEFAULTS
from .layer_choice import INCLUDED, STACKS
from .layer_inputs import FALLBACKS
from .methods import TAKERS
from .plans import Plan
from .report_chart import total, total_before
from .report_page import write_page
from .report_text import quantization
from .sensitivity import OPTIONS
from .threads import available_cpus
from .whole_models import convert, report_of

NO_GROUPS = 0  # --group none, as opposed to no --group
OF_ALL_LAYERS = ("format", "group", "symmetric", "rotate", "window", "method", "include", "exclude")


def add_arguments(parser):
    """Add the command's options to a parser."""
    parser.description = (
        "Quantizes the linear layers of a safetensors checkpoint, layer by layer, and keeps all other tensors as they "
        "are. Weights are matrices [outputs, inputs], as PyTorch's Linear has them, or for the experts of a layer "
        "stacks of such, [experts, outputs, inputs]. Interrupted at any moment, the "
        "same command goes on where it was; the space for the result is taken before the work begins.")
    parser.epilog = "What is kept unless --include asks for it, by names, or what follows the number of a layer in " \
        f"them, or one of the dots after that. {kept_names.listed()}".replace("%", "%%")
    add = parser.add_argument
    add("model", metavar="MODEL", help="a safetensors file, the index of a sharded checkpoint, or the folder of one")
    add("out", metavar="OUT", help="a folder, made if it is missing, which gets files of the same names; for one file "
        "also a path that ends in .safetensors; while the work lasts, *.partial and *.journal lie beside them")
    add("--dry-run", action="store_true", help="show what would become what, with sizes, and do nothing of it")
    add("--report", metavar="FILE", help="write a page about the result to FILE, HTML")
    add("--json", metavar="FILE", help="write the same as JSON to FILE")
    add("--no-sqnr", dest="measure", action="store_false",
        help="do not measure the signal-to-noise ratio of each layer, which takes about as long as rounding to nearest")

    group = parser.add_argument_group("which layers")
    add = group.add_argument
    add("--include", nargs="+", metavar="GLOB", help=f"names of weights, or patterns (default: {' '.join(INCLUDED)}; "
        f"of stacks of weights, 3-D: {' '.join(STACKS)})")
    add("--exclude", nargs="+", metavar="GLOB", help="but not these; without --include neither routers of mixtures of "
        "experts, output heads and embeddings, by the names below; --dry-run shows why each tensor is kept")
    add("--keep-bad", action="store_true", help="keep layers as they are, with a warning, that cannot be quantized: "
        "with NaN or infinities, for instance (default: they are an error, when all others are done)")
    add("--plan", metavar="PLAN", help="quantize the layers that this file names, as it says; all others are kept")
    add("--save-plan", metavar="FILE", help="write the plan that is followed to FILE, JSON to read and edit")

    group = parser.add_argument_group("how they are quantized")
    add = group.add_argument
    add("--format", choices=formats.FORMATS, help="format of the weights (default: int4)")
    add("--group", type=_group, metavar="G", help="so many weights share a scale: a multiple of 32, or 'none' for one "
        "scale an output channel (default: none for int8 and the trellises, 64 for nf4, codebook4 and log4, 32 for "
        "others)")
    add("--rotate", action=argparse.BooleanOptionalAction, default=None,
        help="rotate the weights' rows at random before they are quantized (default: yes for the trellises)")
    add("--window", type=int, choices=formats.WINDOWS, metavar="L",
        help="bits of a state of a trellis, 12 to 16: more accurate and slower than the default, a table")
    add("--method", choices=TAKERS, help="how codes are found (default: rtn, rounding to nearest)")
    add("--calibration", metavar="FILE", help="statistics of the layers' inputs, for the methods that need them: a "
        "file of qkernels.save({name: InputStatistics}), names with or without .weight; of a stack for each weight, "
        "name.0, name.1 and so on")
    add("--fallback", choices=FALLBACKS, help="the method for layers of which FILE has no statistics, or of no rows, "
        "such as experts that no token has reached (default: they are an error)")
    add("--for", dest="layout", choices=_core.weight_layouts(), help="the ISA of the machine on which the weights will "
        "be used, for whose kernels they are packed (default: this machine's); others pack them anew as they load them")
    add = group.add_mutually_exclusive_group().add_argument
    add("--symmetric", action="store_true", default=None, help="no zero points (default but for int4 and int2)")
    add("--asymmetric", action="store_false", dest="symmetric", default=None,
        help="a zero point with every scale: more accurate (default for int4 and int2)")

    group = parser.add_argument_group("where the work is done").add_mutually_exclusive_group()
    add = group.add_argument
    add("--processes", type=_positive, metavar="N", help="so many processes of this machine, of one thread each "
        "(default: as many as there are CPUs for this one)")
    add("--dask", metavar="ADDRESS", help="the workers of the Dask cluster with this scheduler, which have qkernels "
        "and see the same files under the same paths")


def run(args):
    """Run the command with parsed arguments and return the exit code."""
    start = time.perf_counter()
    try:
        with warnings_as_lines(_say):
            conversion = _conversion(args)
        for line in conversion.warnings:
            _say(line)
        results = results_of(args, "report", "json", "save_plan")
        conversion.check_paths([("the plan", args.plan)] if args.plan else [], results)
        check_results(results)
        if args.dry_run:
            if args.report or args.json:
                raise ValueError("--dry-run measures nothing; leave out --report and --json")
            if args.save_plan:
                conversion.plan.save(args.save_plan)
            _print_table(report_of(conversion, {}, None, 0.0))
            if args.layout is not None:
                print(f"packed for {args.layout}, {sum(file.nbytes for file in conversion.files):,} bytes of files")
            return 0
        with contextlib.ExitStack() as stack:
            count = None
            if args.dask is not None:
                executor = stack.enter_context(executors.dask_executor(args.dask))
            else:
                count = args.processes or available_cpus()
                executor = stack.enter_context(executors.local_processes(count))
            done = convert(conversion, executor, at_once=count, keep_bad=args.keep_bad, measure=args.measure,
                           say=_say, warn=_say)
        report = report_of(conversion, done, count, time.perf_counter() - start)
        if args.save_plan:
            _measured_plan(report, conversion.plan).save(args.save_plan)
        if args.json:
            write_json(args.json, report)
        if args.report:
            write_page(args.report, report)
        print(printable(_summary(report)))
    except BrokenExecutor as error:
        _say(f"a process that worked on a layer was killed ({error}); the same command goes on")
        return 2
    except BrokenPipeError:  # of standard output
        raise
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 2
    except (ValueError, TypeError, ImportError) as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on")
        return 130
    return 0


def _conversion(args):
    """What is to be done, checked."""
    plan = options = None
    if args.plan is not None:
        for name in OF_ALL_LAYERS:
            if getattr(args, name) is not None:
                raise ValueError(f"--plan decides about the layers; leave out --{_option(name, getattr(args, name))}")
        plan = Plan.load(args.plan)
    else:
        options = _options(args)
    return Conversion(args.model, args.out, options, plan, args.include, args.exclude or (), args.calibration,
                      args.fallback, args.layout)


def _options(args):
    """Those of quantize_weight that are not its defaults."""
    options = DEFAULTS[args.format or "int4"].options
    given = {"group_size": args.group, "symmetric": args.symmetric, "rotate": args.rotate, "window": args.window,
             "method": args.method}
    options |= {name: value for name, value in given.items() if value is not None}
    options["group_size"] = options["group_size"] or None
    return {name: value for name, value in options.items() if name == "format" or value != OPTIONS[name]}


def _option(name, value):
    return {("symmetric", False): "asymmetric", ("rotate", False): "no-rotate"}.get((name, value), name)


def _measured_plan(report, plan):
    """The plan, with what was measured of each layer."""
    measured = {}
    for layer in report["layers"]:
        measured[layer["name"]] = {"bytes": layer["bytes"], "bits": layer["bits"], "seconds": layer["seconds"]}
        if layer["sqnr"] is not None:
            measured[layer["name"]]["error"] = ratio(-layer["sqnr"])
    return Plan(plan.layers, measured)


def _print_table(report):
    rows = [(layer["name"], layer["dtype"], _shape(layer), quantization(layer), layer["float_bytes"], layer["bytes"])
            for layer in report["layers"]]
    rows += [(kept["name"], kept["dtype"], _shape(kept), f"kept: {kept['why']}", kept["bytes"], kept["bytes"])
             for kept in report["kept"]]
    print_rows(("tensor", "dtype", "shape", "becomes", "bytes as floats", "bytes"), rows)
    print(printable(f"{_count(report['layers'], 'layer')} would be quantized, {_kept(report)}; "
                    f"{report['output']} would hold {sum(row[-1] for row in rows):,} bytes, padding apart"))


def _summary(report):
    layers = report["layers"]
    floats, nbytes = (sum(layer[name] for layer in layers) for name in ("float_bytes", "bytes"))
    ratios = [layer["sqnr"] for layer in layers if layer["sqnr"] is not None]
    return (f"{report['output']}: {_count(layers, 'layer')}, {floats / 1e6:,.1f} MB as float32, in {nbytes / 1e6:,.1f} "
            + "MB" + (f" ({32 * nbytes / floats:.2f} bits a weight)" if floats else "")
            + (f", SQNR {min(ratios):.1f} to {max(ratios):.1f} dB" if ratios else "")
            + f"; {_kept(report)}; {report['seconds']:.1f} s")


def _kept(report):
    """How many tensors are kept, and their share of the checkpoint."""
    nbytes, layers = total(report["kept"]), total_before(report["layers"])
    share = f", {nbytes / 1e6:,.1f} MB, {100 * nbytes / (nbytes + layers):.0f} % of the bytes" if nbytes else ""
    return f"{_count(report['kept'], 'tensor')} kept{share}"


def _count(items, what):
    return f"{len(items)} {what}{'s' * (len(items) != 1)}"


def _shape(entry):
    return " x ".join(map(str, entry["shape"]))


def _say(line):
    print(f"qkernels quantize: {one_line(line)}", file=sys.stderr)


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _group(text):
    if text == "none":
        return NO_GROUPS
    if not text.isdecimal() or not int(text) or int(text) % 32:
        raise argparse.ArgumentTypeError(f"got {text!r}, takes a multiple of 32, or 'none'")
    return int(text)
