#!/usr/bin/env bash
# Run the package on emulated Arm CPUs: tests/arm.sh [--long] [CPU...], by default cortex-a72 (Advanced SIMD only), cortex-a76
# (adds dot products) and max (adds i8mm). Cross-builds the kernel checks and the extension module, then runs them under qemu's
# user mode, two jobs at a time: on the first CPU the checks of all kernels that it has, and an encoder whose weights lie in a
# mapped file, as on the smallest machines; on each other those of its best ISA; on the last CPU the frozen bytes of all
# functions and files under each of its ISAs, and the threads. --long adds the Python tests of all that comes out of a kernel,
# under the last CPU's best ISA, and the frozen bytes on each other CPU. For Debian; root is needed only if tools are missing.
#
# An arm64 Python is unpacked once, from Debian's packages and PyPI's wheels, to QKERNELS_ARM_CACHE (by default
# ~/.cache/qkernels-arm). A folder there is used only when it is complete, so the script may be interrupted at any time.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_ROOT_USER_ACTION=ignore
cache=${QKERNELS_ARM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qkernels-arm}
long=
[ "${1:-}" != --long ] || { long=yes && shift; }
(($#)) && cpus=("$@") || cpus=(cortex-a72 cortex-a76 max)
declare -A best_isa=([cortex-a53]=neon [cortex-a72]=neon [cortex-a76]=neon_dotprod [neoverse-n1]=neon_dotprod [max]=neon_i8mm)
cc=aarch64-linux-gnu-gcc
libc=/usr/aarch64-linux-gnu

work=$(mktemp -d) unfinished=
trap 'rm -rf "$work" ${unfinished:+"$unfinished"}' EXIT
report() { printf '%-11s %-9s %s\n' "$1" "$2" "$3"; }

install_tools() {
    local missing=() sudo=()
    command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
    command -v $cc >/dev/null || missing+=(gcc-aarch64-linux-gnu)
    [ -e $libc/include/stdio.h ] || missing+=(libc6-dev-arm64-cross)
    ((${#missing[@]})) || return 0
    ((EUID)) && sudo=(sudo)
    "${sudo[@]}" apt-get -qq update
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install "${missing[@]}" >/dev/null
    report host tools "installed ${missing[*]}"
}

# once NAME COMMAND: COMMAND fills a new folder, its argument, that becomes NAME in the cache.
once() {
    [ ! -e "$cache/$1" ] || return 0
    mkdir -p "$cache"
    unfinished=$(mktemp -d "$cache/$1.XXXXXX")
    "$2" "$unfinished"
    mv -T "$unfinished" "$cache/$1" 2>/dev/null || [ -e "$cache/$1" ] # another run may have been faster
    report host "$1" "fetched"
}

# Debian's arm64 packages of Python, by an apt whose state lies apart: the host's is not touched.
fetch_root() {
    local apt=$work/apt package python
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial}
    : >"$apt/status"
    local options=(-qq -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
        -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    python=$(apt-cache "${options[@]}" depends python3-minimal | sed -n 's/.*Depends: \(python3\.[0-9]*\)-minimal$/\1/p')
    apt-get "${options[@]}" -y --no-install-recommends --download-only install "$python" "lib$python-dev" libstdc++6 >/dev/null
    for package in "$apt"/cache/archives/*.deb; do
        dpkg -x "$package" "$1"
    done
}

fetch_wheels() {
    python3 -m pip install -q --no-deps --only-binary :all: --python-version "$version" --platform manylinux_2_28_aarch64 \
        --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 --target "$1" \
        numpy pytest iniconfig pluggy packaging pygments
}

fetch_cython() { python3 -m pip install -q --target "$1" 'Cython>=3.1'; }

# The cortex-a72 run proves that no newer instruction leaks into the baseline, if the emulator refuses them there.
check_emulator() {
    echo 'int main(void) { __asm__(".arch armv8.2-a+dotprod\n sdot v0.4s, v1.16b, v2.16b"); }' >"$work/sdot.c" &&
        $cc -static "$work/sdot.c" -o "$work/sdot" &&
        qemu-aarch64-static -cpu cortex-a76 "$work/sdot" || return 1
    (qemu-aarch64-static -cpu cortex-a72 "$work/sdot" || exit $?) 2>/dev/null && { echo "cortex-a72 runs sdot"; return 1; }
    echo "sdot is an illegal instruction on cortex-a72"
}

# A copy of the package and its tests, with the extension module that setup.py would build on an arm64 machine, of the
# objects that the kernel checks are made of, too.
build_package() {
    local flags=("-I$root/usr/include/$python" -idirafter "$root/usr/include" "-I$cache/wheels/numpy/_core/include"
        -Icsrc/include -DNPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION)
    mkdir "$work/package" &&
        cp -r qkernels bench tests README.md pyproject.toml "$work/package" &&
        rm -f "$work"/package/qkernels/_core.* &&
        PYTHONPATH=$cache/cython python3 -m cython -3 -I qkernels qkernels/_core.pyx -o "$work/_core.c" &&
        $cc -O2 -fPIC "${flags[@]}" -c "$work/_core.c" -o "$work/_core.o" &&
        find "$work/check/csrc" -name '*.o' >"$work/objects" &&
        $cc -shared "$work/_core.o" "@$work/objects" -lm -pthread \
            -o "$work/package/qkernels/_core.cpython-${version/./}-aarch64-linux-gnu.so"
}

# stage CPU NAME COMMAND...: one line says how it went; a failure shows the output, too. (No set -e inside COMMAND.)
stage() {
    local log=$work/$1-$2.log from=$SECONDS
    if "${@:3}" >"$log" 2>&1; then
        report "$1" "$2" "ok, $((SECONDS - from)) s  $(tail -n 1 "$log")"
    else
        report "$1" "$2" "FAILED after $((SECONDS - from)) s"
        tail -n 200 "$log"
        return 1
    fi
}

places=$(($(nproc) < 2 ? 1 : 2)) running=0 failures=0
finish() {
    wait -n || failures=1
    running=$((running - 1))
}
# start CPU NAME COMMAND...: a stage in the background, as soon as there is a place.
start() {
    ((running < places)) || finish
    stage "$@" &
    running=$((running + 1))
}

# A Python for the CPU. As sys.executable, too: tests start it again, and the host's kernel cannot execute its binary. NumPy
# multiplies on one thread with its plainest kernels: its products had NaN in emulation now and then.
make_python() {
    printf '#!/bin/sh\nOPENBLAS_CORETYPE=ARMV8 OPENBLAS_NUM_THREADS=1 PYTHONHOME=%s PYTHONPATH=%s exec qemu-aarch64-static -cpu %s -L %s -0 %s %s "$@"\n' \
        "$root/usr" "$cache/wheels:$work/package" "$1" "$root" "$work/python-$1" "$root/usr/bin/$python" >"$work/python-$1"
    chmod +x "$work/python-$1"
}

selects() {
    "$work/python-$1" -c '
import qkernels, sys
selected = qkernels.cpu_info()["selected"]
print(selected, "selected")
sys.exit(sys.argv[1] not in ("", selected))' "${best_isa[$1]:-}"
}

kernels() { qemu-aarch64-static -L $libc -cpu "$1" "$work/check/check" "${@:2}"; }
python_tests() { "$work/python-$1" -m pytest -p no:cacheprovider --tb=short "${@:2}"; }

install_tools
once root fetch_root
root=$cache/root
python=$(basename "$root"/usr/bin/python3.*[0-9])
version=${python#python}
once wheels fetch_wheels
once cython fetch_cython
stage host emulator check_emulator
stage host checks python3 tests/check/check.py --cc "$cc -fPIC" --build "$work/check" --runner true
stage host package build_package
stage host threads python3 tests/check/check.py --cc $cc --threads --runner "qemu-aarch64-static -L $libc"

cd "$work/package"
unset PYTHONDONTWRITEBYTECODE # the next start finds the standard library compiled
for cpu in "${cpus[@]}"; do
    make_python "$cpu"
    stage "$cpu" isa selects "$cpu"
done

first=${cpus[0]} last=${cpus[-1]} frozen=(tests/test_hash*.py tests/test_golden*.py)
# Quantizers are NumPy alone, and slow here: their frozen bytes are among the golden vectors.
if [ -n "$long" ]; then # the longest first
    start "$last" results python_tests "$last" tests --this-isa -k "not formats and not codebook"
fi
start "$first" kernels kernels "$first"
start "$last" bytes python_tests "$last" "${frozen[@]}"
start "$last" threads python_tests "$last" tests/test_threads*.py
start "$first" embedding python_tests "$first" tests/test_demo_saved.py # the smallest machine: a mapped model, one thread
for cpu in "${cpus[@]:1}"; do
    start "$cpu" kernels kernels "$cpu" ${best_isa[$cpu]:+--isa "${best_isa[$cpu]}"}
done
for cpu in "${cpus[@]::${#cpus[@]}-1}"; do
    [ -z "$long" ] || start "$cpu" bytes python_tests "$cpu" --this-isa "${frozen[@]}"
done
while ((running > 0)); do
    finish
done
exit $failures
