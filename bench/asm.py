#!/usr/bin/env python3
"""The inner loops of the GEMM kernels as the compiler left them: instructions, spills, and llvm-mca's opinion.

Each kernel is compiled with the flags of csrc/build.py and disassembled. A line describes one iteration of the loop for
one tile height: multiply-accumulates (MACs), instructions, multiplies, loads, references to the stack (spills) and
moves between vector registers. The exit code is 1 when a loop refers to the stack.

With --mca, a column a CPU: MACs a cycle by llvm-mca, and the share that this is of the bound. The bound is the time for
which the loop's multiply and accumulate instructions occupy the pipes that execute them, were nothing else there.

examples:
  asm.py                               every kernel that this machine's compiler builds
  asm.py --arm                         the Arm kernels, from a cross compiler, with --mca
  asm.py --isa avx2 --mca --cpu haswell --cpu znver4
  asm.py --isa avx512vnni --show 12    the loop for 12 rows itself
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

# Multiply instruction: MACs for each 128 bits of its registers.
MACS = {"vpmaddwd": 8, "vpdpbusd": 16, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8, "smlsl": 8, "smlsl2": 8, "sdot": 16, "smmla": 32}
ACCUMULATES = {"vpaddd", "sadalp"}  # what adds the products up where the multiply does not

# The CPUs that --mca asks about: of those that execute the ISA, the ones whose pipes llvm knows.
CPUS = {
    "avx2": ["haswell", "skylake", "alderlake", "znver4"],
    "avxvnni": ["alderlake"],
    "avx512vnni": ["icelake-server", "sapphirerapids", "znver4"],
    "neon": ["cortex-a72", "cortex-a76", "neoverse-n1", "neoverse-v1", "neoverse-v2", "cortex-a55", "cortex-a53"],
    "neon_dotprod": ["cortex-a76", "neoverse-n1", "neoverse-v1", "neoverse-v2", "cortex-a55"],
    "neon_i8mm": ["neoverse-v1", "neoverse-v2"],
}

# The kernel's file, and after it run() once more for each height, to learn which of its loops is whose.
HEIGHTS = "".join(
    f"__attribute__((flatten)) void rows_{m}(const void *a, const void *b, size_t k_steps, int32_t *tile)\n"
    f"{{ run(a, b, {m}, k_steps, tile); }}\n" for m in range(1, 17))

FUNCTION = re.compile(r"[0-9a-f]+ <(\w+)>:$")
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(.*)")
JUMP = re.compile(r"(?:j\w+|b|b\.\w+|cbn?z|tbn?z)\s.*?0x([0-9a-f]+) <")
# x86: an operand in memory is read unless it is the last one, the destination; lea reads nothing.
LOAD = re.compile(r"ld|(?!lea|prefetch)\S+\s+.*\(.*\).*,")
MOVE = re.compile(r"v?mov\w+\s+%([xyz]mm)\d+, %\1\d+$|mov\s+v\d+\.16b, v\d+\.16b$")
FRAME = re.compile(r"movq\s+%rsp, %rbp$|mov\s+x29, sp$")


def is_in(names):
    return lambda text: text.split()[-1 if text.startswith("{") else 0] in names


class Loop(NamedTuple):
    """An innermost loop that multiplies; the last instruction jumps to the first."""

    rows: int
    instructions: list
    stack: int

    def count(self, test):
        return sum(bool(test(text)) for text in self.instructions)


def mnemonic(text):
    words = text.split()
    return words[1] if words[0].startswith("{") else words[0]


def macs(text):
    """Multiply-accumulates that an instruction does."""
    return MACS.get(mnemonic(text), 0) * (4 if "%zmm" in text else 2 if "%ymm" in text else 1)


def find_tool(name):
    """The newest installed version of an LLVM tool."""
    for command in [*(f"{name}-{version}" for version in range(40, 18, -1)), name]:
        if shutil.which(command):
            return command
    sys.exit(f"asm.py: {name} not found: install Debian's package llvm-19, or another LLVM of at least that version")


def disassemble(cc, isa, source):
    """The disassembly of a kernel's object, as lines."""
    with tempfile.TemporaryDirectory(prefix="qkernels-asm-") as folder:
        unit, target = Path(folder, "unit.c"), Path(folder, "unit.o")
        unit.write_text(f'#include "{source}"\n{HEIGHTS}')
        subprocess.run([*cc, *build.common_flags(cc), *build.ISA_FLAGS[isa][1], "-c", str(unit), "-o", str(target)],
                       check=True)
        command = [find_tool("llvm-objdump"), "-d", "--no-show-raw-insn", str(target)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def functions_of(lines):
    """{function: {address: instruction}} of a disassembly."""
    functions, body = {}, {}
    for line in lines:
        if match := FUNCTION.match(line):
            body = functions.setdefault(match[1], {})
        elif match := INSTRUCTION.match(line):
            body[int(match[1], 16)] = match[2].replace("\t", " ").strip()
    return functions


def multiply_loops(body):
    """The innermost loops of a function that multiply, as (instructions, references to the stack)."""
    pointers = ["%rsp", "[sp"]
    if any(FRAME.match(text) for text in body.values()):
        pointers += ["%rbp", "[x29"]
    spans = [(int(jump[1], 16), address) for address, text in body.items()
             if (jump := JUMP.match(text)) and int(jump[1], 16) <= address]
    for first, last in spans:
        if any((first, last) != other and first <= other[0] and other[1] <= last for other in spans):
            continue
        loop = [text for address, text in body.items() if first <= address <= last]
        if any(map(macs, loop)):
            yield loop, sum(any(pointer in text for pointer in pointers) for text in loop)


def loops_of_run(lines):
    """The loops of run() in a disassembled unit, by height and work."""
    functions = functions_of(lines)

    def signature(loop):
        return tuple(sorted(re.match(r"\S+ [{ a-z]*", text)[0] for text in loop if macs(text) or LOAD.match(text)))

    rows = {signature(loop): int(name[5:]) for name, body in functions.items() if name.startswith("rows_")
            for loop, _ in multiply_loops(body)}
    loops = [Loop(rows.get(signature(loop), 0), loop, stack) for name, body in functions.items()
             if not name.startswith("rows_") and name != "peak" for loop, stack in multiply_loops(body)]
    return sorted(loops, key=lambda loop: (loop.rows, -sum(map(macs, loop.instructions))))


def mca(loops, cpu, isa, *options):
    """llvm-mca's report on each loop."""
    arm = isa.startswith("neon")
    text = "".join(f"# LLVM-MCA-BEGIN\nloop{i}:\n" + "\n".join(re.sub(r"0x[0-9a-f]+ <.*", f"loop{i}", line) for line in loop) +
                   "\n# LLVM-MCA-END\n" for i, loop in enumerate(loops))
    command = [find_tool("llvm-mca"), "-mtriple=" + ("aarch64" if arm else "x86_64"), f"-mcpu={cpu}", "-json", *options]
    output = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return json.loads(output)["CodeRegions"]


def pipe_cycles(report):
    """The time for which the instructions of a report occupy their pipes, spread as evenly as possible."""
    demand = {}
    for i in range(len(report["Instructions"])):
        usage = {entry["ResourceIndex"]: entry["ResourceUsage"]
                 for entry in report["ResourcePressureView"]["ResourcePressureInfo"] if entry["InstructionIndex"] == i}
        pipes = frozenset(usage)
        demand[pipes] = demand.get(pipes, 0) + sum(usage.values())
    unions = [frozenset().union(*some) for count in range(1, len(demand) + 1) for some in combinations(demand, count)]
    return max(sum(cycles for pipes, cycles in demand.items() if pipes <= union) / len(union) for union in unions)


def mca_figures(loops, cpu, isa):
    """For each loop MACs a cycle, by llvm-mca and as the bound of the pipes."""
    bodies = [loop.instructions for loop in loops]
    products = [[text for text in loop if macs(text) or mnemonic(text) in ACCUMULATES] for loop in bodies]
    work = [sum(map(macs, loop)) for loop in bodies]
    iterations = 500
    cycles = [report["SummaryView"]["TotalCycles"] / iterations
              for report in mca(bodies, cpu, isa, f"-iterations={iterations}")]
    bounds = map(pipe_cycles, mca(products, cpu, isa, "-instruction-tables"))
    return [(w / c, w / b) for w, c, b in zip(work, cycles, bounds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cc", metavar="'CC FLAGS'", help="compiler command (default: cc)")
    parser.add_argument("--arm", action="store_true", help="--mca --cc aarch64-linux-gnu-gcc")
    parser.add_argument("--isa", action="append", choices=CPUS, help="only this kernel; again for more")
    parser.add_argument("--mca", action="store_true", help="MACs a cycle and share of the bound, by llvm-mca")
    parser.add_argument("--cpu", action="append", help="for llvm-mca, as its -mcpu; again for more")
    parser.add_argument("--show", type=int, metavar="ROWS", help="print the loops of this height")
    args = parser.parse_args()
    cc = shlex.split(args.cc or ("aarch64-linux-gnu-gcc" if args.arm else "cc"))
    spills = 0
    for isa in args.isa or [isa for isa in build.built_isas(cc) if isa in CPUS]:
        loops = loops_of_run(disassemble(cc, isa, CSRC / f"kernels/{isa}/gemm_s8_{isa}.c"))
        if args.show is not None:
            for loop in loops:
                if loop.rows==args.show: print(*loop.instructions, "", sep="\n")
            continue
        cpus = (args.cpu or CPUS[isa]) if args.mca or args.arm else []
        print(f"\n{isa:<13}{'rows':>5}{'MACs':>6}{'instr':>6}{'mult':>5}{'loads':>6}{'stack':>6}{'moves':>6}", *(f"{cpu:>15}" for cpu in cpus))
        figures = [mca_figures(loops, cpu, isa) for cpu in cpus]
        for i, loop in enumerate(loops):
            spills += loop.stack
            print(f"{'':<13}{loop.rows:>5}{sum(map(macs,loop.instructions)):>6}{len(loop.instructions):>6}{loop.count(macs):>5}{loop.count(LOAD.match):>6}{loop.stack:>6}{loop.count(MOVE.match):>6}",
              *(f"{f[i][0]:>7.1f}/{f[i][1]:>3.0f} {f[i][0]/f[i][1]:.2f}" for f in figures))
    return spills > 0

if __name__ == "__main__":
    sys.exit(main())
