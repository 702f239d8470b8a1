#!/bin/sh
# fuzz_targets.sh [SECONDS [TARGET...]]: gives each target of libFuzzer (spec/fuzz/targets) new inputs for so
# many seconds (default 30), under AddressSanitizer and UndefinedBehaviorSanitizer, beginning with those that
# are kept in spec/fuzz/corpus. Prints what each has done. Exit code 0: no promise was broken. An input that
# breaks one is left in build-fuzzer; it belongs into the corpus together with the mend.
#   FUZZ_MERGE=1   adds to the corpus the inputs that have reached new code, and drops those that reach none

. "$(dirname -- "$0")/lib.sh"
seconds=${1:-30}
[ $# = 0 ] || shift
ensure_packages fuzz
build build-fuzzer -DCMAKE_C_COMPILER=clang -DIP_SANITIZE=ON -DIP_FUZZ_TARGETS=ON -DIP_WARNINGS_AS_ERRORS=ON
export ASAN_OPTIONS="detect_leaks=1:handle_abort=1" UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=
for target in ${*:-endpoint_text byte_search control_data read_ahead send_queue}; do
  mkdir -p "$work/$target"
  status=0
  "build-fuzzer/fuzz_$target" -max_total_time="$seconds" -max_len=1000 -timeout=20 -print_final_stats=1 \
    -artifact_prefix="build-fuzzer/$target-" "$work/$target" "spec/fuzz/corpus/$target" >"$work/output" 2>&1 || status=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/output")
  say "$target: ${executions:-0} executions in $seconds s, exit code $status"
  if [ "$status" != 0 ]; then
    tail -n 40 "$work/output"
    failed=1
  elif [ -n "${FUZZ_MERGE:-}" ]; then
    mkdir "$work/merged"
    "build-fuzzer/fuzz_$target" -merge=1 -max_len=300 "$work/merged" "spec/fuzz/corpus/$target" "$work/$target" >"$work/output" 2>&1
    rm -rf "spec/fuzz/corpus/$target"
    mv "$work/merged" "spec/fuzz/corpus/$target"
  fi
done
[ -z "$failed" ]
