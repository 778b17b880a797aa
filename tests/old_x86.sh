#!/usr/bin/env bash
# Run the x86-64 build on emulated old CPUs, which fall back to weaker ISAs: tests/old_x86.sh [--long]. Builds the package and
# the kernel checks for this machine, then starts them under qemu's user mode: that no newer instruction leaks is seen in few
# cases of each kernel; --long runs all of them. For Debian; root is needed only if qemu is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
cases=(--smoke)
[ "${1:-}" != --long ] || cases=()
export PIP_ROOT_USER_ACTION=ignore
# Haswell: AVX2, no AVX-512. Nehalem: no AVX; the oldest that NumPy 2.4 starts on (it wants x86-64-v2). Opteron_G1: nothing
# beyond x86-64 itself and SSE3, so without Python.
declare -A isa=([Haswell-noTSX]=avx2 [Nehalem]=scalar [Opteron_G1]=scalar)
# qemu 7.2 reads the masked-off lanes of AVX's masked loads, which a page after the buffer then forbids.
declare -A options=([Haswell-noTSX]="--side start")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ "$(uname -m)" = x86_64 ] || { echo "old_x86.sh: this is no x86-64 machine"; exit 1; }
command -v qemu-x86_64-static >/dev/null || {
    ((EUID)) && sudo=(sudo) || sudo=()
    "${sudo[@]}" apt-get -qq update
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install qemu-user-static >/dev/null
}

# stage CPU NAME COMMAND...: one line says how it went; a failure shows the output, too. (No set -e inside COMMAND.)
stage() {
    local log=$work/log from=$SECONDS
    if "${@:3}" >"$log" 2>&1; then
        printf '%-14s %-8s ok, %d s  %s\n' "$1" "$2" $((SECONDS - from)) "$(tail -n 1 "$log")"
    else
        printf '%-14s %-8s FAILED after %d s\n' "$1" "$2" $((SECONDS - from))
        tail -n 100 "$log"
        return 1
    fi
}

# From a copy, because a build leaves files behind.
install_package() {
    mkdir "$work/source" &&
        cp -r csrc qkernels bench setup.py pyproject.toml README.md LICENSE "$work/source" &&
        rm -f "$work"/source/qkernels/_core.*.so &&
        python3 -m pip install -q --target "$work/site" "$work/source" pytest &&
        cp -r tests "$work/tests"
}

python=$(python3 -c 'import sys; print(sys.executable)')
run_python() { (cd "$work" && PYTHONPATH=$work/site qemu-x86_64-static -cpu "$1" "$python" "${@:2}"); }

info() {
    run_python "$1" -m qkernels info && run_python "$1" -c '
import qkernels, sys
selected = qkernels.cpu_info()["selected"]
print(selected, "selected")
sys.exit(selected != sys.argv[1])' "${isa[$1]}"
}

stage host package install_package
stage host checks python3 tests/check/check.py --build "$work/check" --runner true
for cpu in Haswell-noTSX Nehalem; do
    stage $cpu info info $cpu
    # The frozen hash of results: the same bytes as on every other CPU.
    stage $cpu python run_python $cpu -m pytest -q -p no:cacheprovider --this-isa tests/test_hash.py
done
# The scalar kernels on the oldest alone.
for cpu in Haswell-noTSX Opteron_G1; do
    read -ra side <<<"${options[$cpu]:-}"
    stage $cpu kernels qemu-x86_64-static -cpu $cpu "$work/check/check" --isa "${isa[$cpu]}" "${side[@]}" "${cases[@]}"
done
