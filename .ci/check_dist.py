"""Check the built distributions: size, dependencies, contents, exported symbols."""

import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

MAX_WHEEL_BYTES = 1_500_000


def check_wheel(path):
    assert path.stat().st_size < MAX_WHEEL_BYTES, f"{path.name}: {path.stat().st_size} bytes"
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        metadata = Parser().parsestr(wheel.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode())
        required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
        assert [r.split(">")[0] for r in required] == ["numpy"], required
        sources = [n for n in names if n.endswith((".c", ".h", ".pyx", ".pxi", ".pxd"))]
        assert not sources, sources
        assert {"qkernels/bench/cli.py", "qkernels/bench/peers/peer.py", "qkernels/bench/shapes/small.txt"} <= set(names)
        with tempfile.TemporaryDirectory() as folder:
            library = wheel.extract(next(n for n in names if n.endswith(".so")), folder)
            symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, check=True, text=True)
    exported = {line.split()[-1] for line in symbols.stdout.splitlines()}
    assert exported == {"PyInit__core"}, exported
    print(f"{path.name}: {path.stat().st_size} bytes, needs numpy only, exports PyInit__core only")


def main(wheel, sdist):
    check_wheel(Path(wheel))
    print(f"{Path(sdist).name}: {Path(sdist).stat().st_size} bytes; the wheel was built from it")


if __name__ == "__main__":
    main(*sys.argv[1:])
