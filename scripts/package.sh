#!/usr/bin/env bash
# Builds wheel and sdist of the last commit twice, compares them, and tries the wheel as a user does: in an
# environment of its own, with PYTHON (such as python3.12; the development environment's when not set).
# Run by: make package
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
builder=$root/.venv/bin/python
python=$(command -v "${PYTHON:-$builder}")
case $python in /*) ;; *) python=$root/$python ;; esac
commit=$(git rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH PIP_DISABLE_PIP_VERSION_CHECK=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for try in one two; do
    mkdir "$work/$try.source"
    git archive "$commit" | tar -x -C "$work/$try.source"
    "$builder" -m build --outdir "$work/$try" "$work/$try.source" >"$work/$try.log" 2>&1 ||
        { cat "$work/$try.log"; exit 1; }
done
(cd "$work/one" && sha256sum -- *) | tee "$work/hashes"
(cd "$work/two" && sha256sum --check --quiet "$work/hashes")
if [ -n "$(find "$work/one" -size +30M)" ]; then
    echo "A distribution is over 30 MB." >&2
    exit 1
fi

"$python" -m venv "$work/fresh"
"$work/fresh/bin/python" -m pip install -q -c constraints.txt "$work"/one/*.whl
"$work/fresh/bin/python" -m pip check
cd "$work"
fresh/bin/python --version
fresh/bin/demur --version
fresh/bin/python - <<'PYTHON'
import subprocess
import time

best = float("inf")
for _ in range(5):
    start = time.perf_counter()
    subprocess.run(["fresh/bin/demur", "--help"], check=True, capture_output=True)
    best = min(best, time.perf_counter() - start)
print(f"demur --help: {best:.2f} s")
assert best <= 0.3, "demur --help takes longer than 0.3 s"
PYTHON
fresh/bin/demur trace organism:test/harmless --limit 4 --model organism-ar --out run
fresh/bin/demur ls run
mkdir -p "$root/dist"
cp one/* "$root/dist/"
