#!/usr/bin/env bash
# Runs atto beside other frameworks in their own harness, on the workload weather-turns:
#   benchmarks/peers/run.sh HARNESS --quick --only atto,floor_nats/bus
# HARNESS holds run.py, harness.py, work.py and drivers/; it is copied, with atto's driver, into BENCH_WORK (by default
# ~/.cache/atto-bench), where the harness's own setup.sh has made the environments of the others.
set -euo pipefail
harness=$(cd "$1" && pwd)
shift
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=${BENCH_WORK:-$HOME/.cache/atto-bench}
copy=$work/harness
mkdir -p "$copy" "$work/venvs"
cp -r "$harness"/. "$copy"
chmod -R u+w "$copy"
cp "$project/benchmarks/peers/atto_driver.py" "$copy/drivers/atto.py"
ln -sfn "$project/.venv" "$work/venvs/atto"
grep -q '"atto/kv"' "$copy/run.py" || sed -i 's|^ORDER = \[|ORDER = ["atto/kv", "atto/pg", |' "$copy/run.py"
cd "$copy"
exec "$project/.venv/bin/python" run.py "$@"
