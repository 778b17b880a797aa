#!/usr/bin/env bash
# Fuzz the reader of model files: tests/fuzz/run.sh [SECONDS], 60 by default. Builds the extension with AddressSanitizer and
# UndefinedBehaviorSanitizer in a copy of this checkout, by clang, and runs fuzz_load.py with atheris (pip install atheris).
# What ends the run is left in a file whose path is printed; the last line has the number of files that were tried.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
atheris=$(python -c 'import atheris; print(atheris.path())')
work=$(mktemp -d)
trap 'rm -rf "$work/tree" "$work/corpus"; rmdir "$work" 2>/dev/null || echo "kept: $work"' EXIT
mkdir "$work/tree" "$work/corpus"
cp -r csrc qkernels bench tests setup.py pyproject.toml README.md LICENSE "$work/tree"
cd "$work/tree"
rm -f qkernels/_core.*.so
# Only what runs here, and unrolled no further: sanitized kernels take minutes to compile.
sed -i 's/"-O3"/"-O1"/' csrc/build.py
supported=" $(cd "$OLDPWD" && python -c "import qkernels; print(*qkernels.cpu_info()['supported'])") "
for isa in csrc/kernels/*/; do
    isa=$(basename "$isa")
    [[ $supported == *" $isa "* ]] || sed -i "s/^    \"$isa\": .*/    \"$isa\": (\"another machine\", []),/" csrc/build.py
done
CC=clang LDSHARED='clang -shared' CFLAGS='-fsanitize=address,undefined,fuzzer-no-link -fno-omit-frame-pointer -O1 -g' \
    python setup.py -q build_ext --inplace
unset QKERNELS_ISA
LD_PRELOAD=$atheris/asan_with_fuzzer.so ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=32 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 QKERNELS_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=. \
    python tests/fuzz/fuzz_load.py "$work/corpus" -max_total_time="$seconds" -max_len=50000 -timeout=20 \
    -malloc_limit_mb=1024 -rss_limit_mb=4096 -artifact_prefix="$work/" -print_final_stats=1 2>&1 | tee "$work/tree/log" |
    grep -v '	\(NEW\|REDUCE\|RELOAD\|pulse\)' | tail -n 60
grep -E '^stat::number_of_executed_units' "$work/tree/log"
