"""bench/asm.py: what it reads from a disassembly, and a run on real kernels where the tools are installed."""

import importlib.util
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_isa
SOURCE = Path(__file__).parents[1] / "bench" / "asm.py"
if not (SOURCE.parents[1] / "csrc").exists():  # as on the emulated CPUs, where the package was brought ready-built
    pytest.skip("tests without the source tree", allow_module_level=True)
spec = importlib.util.spec_from_file_location("asm", SOURCE)
asm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(asm)

ARM = """
0000000000000000 <peak>:
       0:      \tsdot\tv1.4s, v0.16b, v0.4b[0]
       4:      \tb.ne\t0x0 <peak>
0000000000000010 <run>:
      10:      \tmovi\tv1.4s, #0x0
      14:      \tldr\tq0, [x0, #0x10]
      18:      \tmov\tv3.16b, v1.16b
      1c:      \tsdot\tv1.4s, v0.16b, v2.4b[0]
      20:      \tstr\tq3, [sp, #0x20]
      24:      \tldr\tq3, [sp, #0x20]
      28:      \tsdot\tv3.4s, v0.16b, v2.4b[1]
      2c:      \tb.ne\t0x14 <run+0x4>
      30:      \tsadalp\tv5.4s, v1.8h
      34:      \tcbnz\tx1, 0x10 <run>
      38:      \tldr\td0, [x0], #0x8
      3c:      \tsdot\tv1.4s, v0.16b, v2.4b[0]
      40:      \tcbnz\tx3, 0x38 <run+0x28>
      44:      \tadd\tx0, x0, #0x1
      48:      \tcbnz\tx3, 0x44 <run+0x34>
      4c:      \tb.ne\t0x50 <run+0x40>
      50:      \tret
0000000000000060 <rows_1>:
      60:      \tsdot\tv9.4s, v8.16b, v7.4b[0]
      64:      \tldr\td8, [x5]
      68:      \tb.ne\t0x60 <rows_1>
0000000000000070 <rows_2>:
      70:      \tldr\tq9, [x7]
      74:      \tldr\tq8, [x7]
      78:      \tsdot\tv9.4s, v8.16b, v7.4b[0]
      7c:      \tsdot\tv9.4s, v8.16b, v7.4b[0]
      80:      \tb.ne\t0x70 <rows_2>
"""

X86 = """
0000000000000000 <run>:
       0:      \tmovq\t%rsp, %rbp
      10:      \tvmovdqa\t(%rsi), %ymm1
      14:      \tvpbroadcastd\t(%rdi), %ymm0
      18:      \t{vex}\tvpdpbusd\t%ymm1, %ymm0, %ymm2
      1c:      \tvpmaddwd\t-0x40(%rbp), %xmm0, %xmm3
      20:      \tvmovdqa\t%ymm2, 0x8(%rdx)
      24:      \tleaq\t0x8(%rdi), %rdi
      28:      \tvmovdqa\t%ymm2, %ymm4
      2c:      \tvpdpbusd\t%zmm1, %zmm0, %zmm2
      30:      \tjne\t0x10 <run+0x10>
"""


def test_loops_of_an_arm_kernel():
    rest, main = asm.loops_of_run(ARM.splitlines())  # not the outer loop, nor the one that multiplies nothing
    assert [rest.rows, main.rows] == [1, 2]
    assert main.instructions[0] == "ldr q0, [x0, #0x10]" and main.instructions[-1] == "b.ne 0x14 <run+0x4>"
    assert [main.macs, main.count(asm.macs_of), main.spills] == [32, 2, 2]
    assert [main.count(asm.LOAD.match), main.count(asm.MOVE.match)] == [2, 1]
    assert [rest.macs, rest.count(asm.LOAD.match), rest.spills, rest.count(asm.MOVE.match)] == [16, 1, 0, 0]


def test_loops_of_an_x86_kernel():
    (loop,) = asm.loops_of_run(X86.splitlines())
    assert loop.rows == 0  # no function says for how many it is
    assert [loop.macs, loop.count(asm.macs_of)] == [32 + 8 + 64, 3]
    assert [loop.count(asm.LOAD.match), loop.spills, loop.count(asm.MOVE.match)] == [3, 1, 1]


def test_rbp_is_not_the_stack_in_a_function_without_a_frame():
    (loop,) = asm.loops_of_run(X86.replace("%rsp, %rbp", "%rax, %rbp").splitlines())
    assert loop.spills == 0


def test_loops_of_a_kernel_of_blocks():
    known = ARM.replace("rows_1", "rows_1_run_bytes").replace("rows_2", "rows_2_run_bytes")
    loops = asm.loops_of_blocks(known.splitlines())
    assert [(loop.function, loop.rows) for loop in loops[:2]] == [("run_bytes", 1), ("run_bytes", 2)]
    assert {(loop.function, loop.rows) for loop in loops[2:]} == {("run", 0), ("peak", 0)}
    assert sum(loop.spills for loop in loops) == 2  # of the function itself


def test_nibbles_that_are_multiplied_apart_count_once():
    nibbles = ["vpmaddubsw %ymm0, %ymm1, %ymm2"] * 2
    assert asm.Loop(1, nibbles, 0, "run_small").macs == 64
    assert asm.Loop(1, [*nibbles, "vpmaddwd %ymm2, %ymm3, %ymm4"], 0, "run_bytes").macs == 32


def test_main_loops_are_the_largest_of_their_height():
    loops = [asm.Loop(1, ["smmla"] * 4, 0), asm.Loop(1, ["smmla"], 0), asm.Loop(2, ["smmla"] * 2, 0)]
    assert asm.main_loops(loops) == [loops[0], loops[2]]
    others = [loop._replace(function="run_packed_U4") for loop in loops]
    assert asm.main_loops(loops + others) == [loops[0], loops[2], others[0], others[2]]


@pytest.mark.parametrize("usage, cycles", [
    ([{0: 1}, {0: 1}, {1: 1}], 2),                               # two instructions share pipe 0
    ([{0: 1}, {0: 1}, {0: 0.5, 1: 0.5}], 2),                     # the third goes to pipe 1
    ([{0: 1}, {0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}], 1.5),         # evenly on both
    ([{0: 1, 1: 1}, {0: 1, 1: 1}, {2: 1}], 2),                   # each of two takes both pipes
])
def test_pipe_cycles(usage, cycles):
    pressure = [{"InstructionIndex": i, "ResourceIndex": pipe, "ResourceUsage": used}
                for i, pipes in enumerate(usage) for pipe, used in pipes.items()]
    report = {"Instructions": ["x"] * len(usage), "ResourcePressureView": {"ResourcePressureInfo": pressure}}
    assert asm.pipe_cycles(report) == cycles


# Real kernels ---------------------------------------------------------------------------------

GCC = {"avx2": "gcc", "neon": asm.ARM_CC}


@pytest.fixture(params=GCC)
def kernel(request):
    """The options for a kernel that gcc builds here."""
    cc = GCC[request.param]
    if not shutil.which(cc) or request.param not in asm.build.built_isas([cc]):
        pytest.skip(f"no gcc that builds {request.param}")
    try:
        asm.find_llvm("llvm-objdump")
        asm.find_llvm("llvm-mca")
    except SystemExit as error:
        pytest.skip(str(error))
    return ["--op", "gemm_s8", "--isa", request.param, "--cc", cc]


def test_a_shipped_kernel_does_not_spill(kernel, capsys):
    assert asm.main(kernel) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row[0] for row in rows][-1] in ("4", "6") and all(row[5] == "0" for row in rows)


def test_a_shipped_kernel_of_blocks_does_not_spill(kernel, capsys):
    assert asm.main(["--op", "gemm_grouped", *kernel[2:], "--rows", "3"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert {row[0] for row in rows} >= {"run_bytes", "run_small", "run_packed_U8", "run_packed_U4", "run_packed_U2"}
    assert all(row[1] == "3" and row[6] == "0" for row in rows)


def test_spills_are_seen(kernel, capsys):
    registers = [f"-ffixed-xmm{i}" for i in range(8, 16)] if "avx2" in kernel else [f"-ffixed-v{i}" for i in range(20)]
    assert asm.main([*kernel[:-1], " ".join([kernel[-1], *registers])]) == 1
    assert "vectors moved to or from the stack" in capsys.readouterr().out


def test_mca_is_below_the_bound(kernel, capsys):
    cpu = "haswell" if "avx2" in kernel else "cortex-a72"
    assert asm.main([*kernel, "--mca", "--cpu", cpu]) == 0
    ratios = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[3:]]
    assert len(ratios) >= 4 and all(0.3 < ratio <= 1 for ratio in ratios)


def test_show_prints_the_loop(kernel, capsys):
    isa = kernel[3]
    assert asm.main([*kernel[:2], *kernel[4:], "--show", isa, "--rows", "4"]) == 0
    instructions = capsys.readouterr().out.splitlines()
    assert sum(bool(asm.macs_of(text)) for text in instructions if text) >= 8


def test_no_compiler_and_no_kernel(capsys):
    with pytest.raises(SystemExit, match="no-such-cc not found"):
        asm.main(["--cc", "no-such-cc"])
    if shutil.which("cc"):
        other = "neon" if asm.build.built_isas(["cc"])[-1] != "neon_i8mm" else "avx2"
        with pytest.raises(SystemExit, match=f"builds none of {other}"):
            asm.main(["--cc", "cc", "--isa", other])


def test_a_missing_tool_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda command: None)
    with pytest.raises(SystemExit, match="llvm-mca not found; it comes with Debian's package llvm-19"):
        asm.find_llvm("llvm-mca")
