#!/usr/bin/env python3
"""The inner loops of the GEMM kernels as the compiler left them: instructions, spills, and what llvm-mca makes of them.

Each kernel is compiled with the flags of csrc/build.py and disassembled; the scalar one, plain C, is left out. A line
describes one iteration of a loop: the tile height that it serves, multiply-accumulates (MACs), instructions,
multiplies, loads, spills (vector registers kept on the stack), and moves between vector registers. The exit code is 1
when a loop spills. An address that is kept there costs a load, and hardly matters.

The functions of gemm_grouped are shown for blocks of 32 values, float16 scales and no zero points. Where the compiler
leaves no loop inside that of the blocks, as on Arm, a line is a whole block, scaling and all.

With --mca, a line describes the main loop of a height, and has a column for each CPU: MACs a cycle by llvm-mca / the
bound of the multiply pipes, and their ratio. The bound counts the multiplies and what adds their products up (sadalp,
vpaddd), as though nothing else were in the loop and their pipes never waited.

examples:
  asm.py                               every kernel that this machine's compiler builds
  asm.py --arm                         the Arm kernels, by a cross compiler, with --mca
  asm.py --isa avx2 --mca --cpu haswell --cpu znver4
  asm.py --show avx512vnni --rows 12   the loop itself
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).resolve().parents[1] / "csrc"
sys.path.insert(0, str(CSRC))
import build  # noqa: E402

ARM_CC = "aarch64-linux-gnu-gcc"

# The MACs of a multiply instruction for each 128 bits of its registers; and what adds up where the multiply does not.
MACS = {"vpmaddwd": 8, "vpmaddubsw": 16, "vpdpbusd": 16, "smull": 8, "smlal": 8, "smlal2": 8, "smlsl2": 8, "sdot": 16,
        "smmla": 32, "usmmla": 32}
ADDS = {"vpaddd", "vpaddw", "sadalp", "addp"}

# The CPUs of --mca: those that have the instructions, and whose pipes LLVM knows. (A Cortex-A76 is to LLVM 19 a
# Cortex-A57 that has more instructions.)
CPUS = {
    "avx2": ["haswell", "skylake", "alderlake", "znver4"],
    "avxvnni": ["alderlake"],
    "avx512vnni": ["icelake-server", "sapphirerapids", "znver4"],
    "neon": ["cortex-a72", "cortex-a76", "neoverse-n1", "neoverse-v1", "neoverse-v2", "cortex-a55"],
    "neon_dotprod": ["cortex-a76", "neoverse-n1", "neoverse-v1", "neoverse-v2", "cortex-a55"],
    "neon_i8mm": ["neoverse-v1", "neoverse-v2"],
}

# Appended to a kernel's file: a function of its own for each height up to the tile's. From those of gemm_s8 the loops of
# run() itself are told apart; those of gemm_grouped are shown.
MAX_ROWS = 16
GROUPED_RUNS = {"run_bytes": 8, "run_small": 8} | {
    f"run_packed_{coding}": bits
    for coding, bits in [("U8", 8), ("U4", 4), ("U2", 2), ("U1", 1), ("TABLE", 4), ("TRELLIS2", 2), ("TRELLIS3", 3),
                         ("TRELLIS4", 4)]
}
HEIGHT = {
    "gemm_s8": """
__attribute__((flatten)) void rows_{m}(const qk_gemm_tile *of)
{{ qk_gemm_tile tile = *of; tile.m = {m}; tile.n = NR; if ({m} <= MR) run(&tile); }}
""",
    "gemm_grouped": "".join(f"""
__attribute__((flatten)) void rows_{{m}}_{run}(const qk_grouped_tile *of)
{{{{ const qk_records records = {{{{.block = 32, .scale_bytes = 2, .bytes = NR * (32 * {bits} / 8 + 2)}}}};
qk_grouped_tile tile = *of; tile.m = {{m}}; tile.a_scales = NULL; tile.records = &records;
if ({{m}} <= MR) {run}(&tile); }}}}
""" for run, bits in GROUPED_RUNS.items()),
}

FUNCTION = re.compile(r"[0-9a-f]+ <(\w+)>:$")
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(.*)")
JUMP = re.compile(r"(?:j\w+|b|b\.\w+|cbn?z|tbn?z) .*?0x([0-9a-f]+) <")
# x86: an operand in memory is read, unless it is the last one, the destination; lea reads nothing.
LOAD = re.compile(r"ld|(?!lea|prefetch)\S+ .*\(.*\).*,")
MOVE = re.compile(r"v?mov\w+ %([xyz])mm\d+, %\1mm\d+$|mov v\d+\.16b, v\d+\.16b$")
VECTOR = re.compile(r"%[xyz]mm\d|\b[qdv]\d+\b")
FRAME_POINTER = re.compile(r"movq %rsp, (%rbp)$|mov (x29), sp$")


class Loop(NamedTuple):
    """An innermost loop that multiplies; its last instruction jumps to its first."""

    rows: int  # of the tile, 0 if not known
    instructions: list
    spills: int  # moves of vectors to and from the stack
    function: str = ""  # of gemm_grouped

    @property
    def macs(self):
        if not self.function:
            return sum(map(macs_of, self.instructions))
        # In gemm_grouped, vpmaddwd adds up: products by vpmaddubsw, then of the two nibbles of each code, or it scales zeros.
        products = [text for text in self.instructions if mnemonic(text) != "vpmaddwd"]
        sums = len(self.instructions) - len(products)
        nibbles = 2 * sums >= self.count(lambda text: mnemonic(text) == "vpmaddubsw")
        return sum(map(macs_of, products)) // (2 if sums and nibbles else 1)

    def count(self, test):
        return sum(bool(test(text)) for text in self.instructions)


def mnemonic(text):
    return re.sub(r"^\{\w+\} ", "", text).split()[0]  # without the {vex} of an encoding


def macs_of(text):
    """The multiply-accumulates of an instruction."""
    return MACS.get(mnemonic(text), 0) * (4 if "%zmm" in text else 2 if "%ymm" in text else 1)


def run_tool(command, **options):
    """The standard output of a command; its failure ends the program."""
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout
    except FileNotFoundError:
        sys.exit(f"asm.py: {command[0]} not found")
    except subprocess.CalledProcessError:
        sys.exit(f"asm.py: this failed: {shlex.join(command)}")


def find_llvm(tool):
    """The newest installed version of an LLVM tool."""
    for command in [*(f"{tool}-{version}" for version in range(39, 18, -1)), tool]:
        if shutil.which(command):
            return command
    sys.exit(f"asm.py: {tool} not found; it comes with Debian's package llvm-19, or any later LLVM")


def slot_of(source):
    """The slot of a kernel's file."""
    return source.stem.removesuffix(f"_{source.parent.name}")


def disassemble(cc, isa, source, heights):
    """The lines of a kernel's disassembly, with a function for each of some heights after its own."""
    with tempfile.TemporaryDirectory(prefix="qkernels-asm-") as folder:
        unit, target = Path(folder, "unit.c"), Path(folder, "unit.o")
        unit.write_text(f'#include "{source}"\n' + "".join(HEIGHT[slot_of(source)].format(m=m) for m in heights))
        run_tool([*cc, *build.common_flags(cc), *build.ISA_FLAGS[isa][1], "-c", str(unit), "-o", str(target)])
        return run_tool([find_llvm("llvm-objdump"), "-d", "--no-show-raw-insn", str(target)]).splitlines()


def functions_of(lines):
    """{function: {address: instruction}} of a disassembly."""
    functions, body = {}, {}
    for line in lines:
        if match := FUNCTION.match(line):
            body = functions.setdefault(match[1], {})
        elif match := INSTRUCTION.match(line):
            body[int(match[1], 16)] = " ".join(match[2].split())
    return functions


def multiply_loops(body):
    """The innermost loops of a function that multiply, their rows not known."""
    frames = [match[1] or match[2] for text in body.values() if (match := FRAME_POINTER.match(text))]
    stack = re.compile("|".join([r"%rsp", r"\bsp\b", *(rf"{frame}\b" for frame in frames)]))
    jumps = [(int(match[1], 16), address) for address, text in body.items() if (match := JUMP.match(text))]
    spans = [(first, last) for first, last in jumps if first <= last]
    for first, last in spans:
        if any(first <= f and l <= last for f, l in spans if (f, l) != (first, last)):
            continue
        instructions = [text for address, text in body.items() if first <= address <= last]
        if any(map(macs_of, instructions)):
            yield Loop(0, instructions, sum(bool(stack.search(text) and VECTOR.search(text)) for text in instructions))


def loops_of_run(lines):
    """The loops of a unit's run(), by height, the main one of each first."""

    def signature(loop):
        """Multiplies and loads, with the kind of registers that Arm's loads name first."""
        return sorted(re.match(r"\S+ [{ a-z]*", text)[0] for text in loop.instructions
                      if macs_of(text) or LOAD.match(text))

    functions = {name: list(multiply_loops(body)) for name, body in functions_of(lines).items()}
    known = [(signature(loop), rows) for rows in range(1, MAX_ROWS + 1) for loop in functions.pop(f"rows_{rows}", [])]
    functions.pop("peak", None)
    loops = [loop._replace(rows=next((rows for loads, rows in known if loads == signature(loop)), 0))
             for found in functions.values() for loop in found]
    return sorted(loops, key=lambda loop: (loop.rows, -loop.macs))


def loops_of_blocks(lines):
    """The loops of a unit's functions for one height each, by function and height, and then all others."""
    loops = []
    for name, body in functions_of(lines).items():
        rows, function = re.fullmatch(r"(?:rows_(\d+)_)?(\w+)", name).groups()
        loops += [loop._replace(rows=int(rows or 0), function=function) for loop in multiply_loops(body)]
    loops = [loop for loop in loops if loop.macs]  # not those that only scale zero points
    return sorted(loops, key=lambda loop: (loop.rows == 0, loop.function, loop.rows, -loop.macs))


def main_loops(loops):
    """The first loop of each known height: the others do what its unrolling leaves over."""
    known = [loop for loop in loops if loop.rows]
    return [loop for i, loop in enumerate(known)
            if i == 0 or (loop.function, loop.rows) != (known[i - 1].function, known[i - 1].rows)]


def ask_mca(loops, isa, cpu, *options):
    """llvm-mca's report on each list of instructions."""
    triple = "aarch64" if isa.startswith("neon") else "x86_64"
    regions = []
    for i, loop in enumerate(loops):
        labelled = [re.sub(r"0x[0-9a-f]+ <.*", f"loop{i}", text) for text in loop]
        regions += ["# LLVM-MCA-BEGIN", f"loop{i}:", *labelled, "# LLVM-MCA-END\n"]
    command = [find_llvm("llvm-mca"), f"-mtriple={triple}", f"-mcpu={cpu}", "-json", *options]
    return json.loads(run_tool(command, input="\n".join(regions)))["CodeRegions"]


def pipe_cycles(report):
    """The cycles that the instructions of a report take if their pipes share them evenly and never wait.

    For any set of pipes, that is at least what can go nowhere else, over the number of pipes: the largest such bound.
    """
    demand = {}  # of the instructions that have the choice among the same pipes
    for i in range(len(report["Instructions"])):
        usage = {entry["ResourceIndex"]: entry["ResourceUsage"]
                 for entry in report["ResourcePressureView"]["ResourcePressureInfo"] if entry["InstructionIndex"] == i}
        pipes = frozenset(usage)
        demand[pipes] = demand.get(pipes, 0) + sum(usage.values())
    unions = [frozenset().union(*some) for size in range(1, len(demand) + 1) for some in combinations(demand, size)]
    return max(sum(cycles for pipes, cycles in demand.items() if pipes <= union) / len(union) for union in unions)


def mca_figures(loops, isa, cpu):
    """(MACs a cycle, their bound) of each loop."""
    iterations = 500
    bodies = [loop.instructions for loop in loops]
    products = [[text for text in body if macs_of(text) or mnemonic(text) in ADDS] for body in bodies]
    reports = ask_mca(bodies, isa, cpu, f"-iterations={iterations}")
    tables = ask_mca(products, isa, cpu, "-instruction-tables")
    return [(loop.macs * iterations / report["SummaryView"]["TotalCycles"], loop.macs / pipe_cycles(table))
            for loop, report, table in zip(loops, reports, tables)]


def print_table(name, loops, isa, cpus):
    print(f"\n{name:<23}{'rows':>5}{'MACs':>6}{'instr':>6}{'mult':>5}{'loads':>6}{'spills':>7}{'moves':>6}"
          + "".join(f"{cpu:>17}" for cpu in cpus))
    columns = [mca_figures(loops, isa, cpu) for cpu in cpus]
    for i, loop in enumerate(loops):
        cells = [f"{rate:.1f}/{bound:<4.3g} {rate / bound:.2f}" for rate, bound in (column[i] for column in columns)]
        print(f"{loop.function:>23}{loop.rows or '?':>5}{loop.macs:>6}{len(loop.instructions):>6}{loop.count(macs_of):>5}"
              f"{loop.count(LOAD.match):>6}{loop.spills:>7}{loop.count(MOVE.match):>6}"
              + "".join(f"{cell:>17}" for cell in cells))


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cc", metavar="'CC FLAGS'", help=f"compiler command (default: cc, with --arm {ARM_CC})")
    parser.add_argument("--arm", action="store_true", help="cross-compile, and --mca")
    parser.add_argument("--isa", action="append", choices=CPUS, help="only its kernel; again for more")
    parser.add_argument("--op", choices=HEIGHT, help="only kernels of this slot")
    parser.add_argument("--rows", type=int, metavar="M", help="only loops for this height")
    parser.add_argument("--mca", action="store_true", help="MACs a cycle, their bound, and the ratio")
    parser.add_argument("--cpu", action="append", help="for --mca, a name that llvm-mca knows; again for more")
    parser.add_argument("--show", metavar="ISA", choices=CPUS, help="print the loops of its kernel instead of counts")
    args = parser.parse_args(arguments)
    args.cc = shlex.split(args.cc or (ARM_CC if args.arm else "cc"))
    args.mca |= args.arm
    return args


def main(arguments=None):
    args = parse_arguments(arguments)
    if not shutil.which(args.cc[0]):
        sys.exit(f"asm.py: {args.cc[0]} not found" + "; Debian's package is gcc-aarch64-linux-gnu" * args.arm)
    wanted = [args.show] if args.show else args.isa or CPUS
    built = [isa for isa in build.built_isas(args.cc) if isa in wanted]
    if not built:
        sys.exit(f"asm.py: {shlex.join(args.cc)} builds none of {', '.join(wanted)}; another compiler: --cc, --arm")
    if not args.show:
        tools = [[*args.cc, "--version"], *([[find_llvm("llvm-mca"), "--version"]] if args.mca else [])]
        print("; ".join(re.search(r".* \d+\.\d+.*", run_tool(tool))[0].strip() for tool in tools))

    heights = [args.rows] if args.rows else range(1, MAX_ROWS + 1)
    spills = 0
    for isa in built:
        files = [CSRC / f"kernels/{isa}/{op}_{isa}.c" for op in ([args.op] if args.op else HEIGHT)]
        for source in filter(Path.exists, files):
            read = loops_of_run if slot_of(source) == "gemm_s8" else loops_of_blocks
            loops = read(disassemble(args.cc, isa, source, heights))
            if not loops:
                sys.exit(f"asm.py: {source.name}: no loop has an instruction of {', '.join(MACS)}")
            if slot_of(source) == "gemm_grouped":
                loops = [loop for loop in loops if loop.rows]  # others sum bytes while they decode
            spills += sum(loop.spills for loop in loops)
            loops = [loop for loop in loops if args.rows in (None, loop.rows)]
            if args.show:
                print(*("\n".join(loop.instructions) for loop in loops), sep="\n\n")
            else:
                print_table(source.stem, main_loops(loops) if args.mca else loops, isa,
                            (args.cpu or CPUS[isa]) if args.mca else [])
    if spills:
        print(f"\n{spills} vectors moved to or from the stack in inner loops")
    return int(spills > 0)


if __name__ == "__main__":
    sys.exit(main())
