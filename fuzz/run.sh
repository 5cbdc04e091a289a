#!/usr/bin/env bash
# Builds the fuzz targets and runs each for SECONDS_EACH seconds (20), from the seeds and the corpus of earlier runs.
# Requires neither a nightly compiler nor cargo-fuzz; g++ builds libFuzzer. A failing input is written to artifacts/.
#
#     [FUZZ_SEED=NUMBER] fuzz/run.sh [SECONDS_EACH] [TARGET...]
#
# Each run tries other inputs. FUZZ_SEED starts from the same random numbers again, as CI does: a failure there is rarely one
# of chance. Coverage depends on the seeds of hash tables, so that inputs may still differ.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:-20}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(header config adapter tokenizer completion)

# Coverage instrumentation for libFuzzer. Naming the target keeps it out of build scripts and macros, which run
# without libFuzzer.
machine=$(rustc -vV | sed -n 's/^host: //p')
coverage=(-Cpasses=sancov-module)
for argument in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=("-Cllvm-args=-sanitizer-coverage-$argument")
done
RUSTFLAGS="${coverage[*]}" CARGO_TARGET_DIR=target cargo build --release --locked --target "$machine"

for target in "${targets[@]}"; do
    printf '\n--- %s, %s s\n' "$target" "$seconds"
    mkdir -p "corpus/$target" artifacts
    log=artifacts/$target.log
    if ! "target/$machine/release/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" \
        -rss_limit_mb=2048 -timeout=10 -max_len=8192 -print_final_stats=1 \
        -seed="${FUZZ_SEED:-0}" -artifact_prefix="artifacts/$target-" >"$log" 2>&1; then
        grep -vE '^(#[0-9]+|\s+NEW_FUNC)' "$log" | tail -n 60
        for input in "artifacts/$target"-*; do
            printf '%s, in base64: %s\n' "$input" "$(base64 -w 0 "$input")"
        done
        exit 1
    fi
    grep '^stat::' "$log"
done
