#!/usr/bin/env bash
# A real garak run against `demur serve` on loopback, for a nightly job: with a guard and without.
# Needs: pip install garak, in an environment of its own (it pins many packages). Fails where an attempt
# has no answer: garak goes on after a refused request and reports on nothing. The probes are short enough
# for the built-in models; give others by PROBES=dan.DanInTheWild to a model with a longer context.
#   scripts/nightly_garak.sh organism-ar guard.safetensors
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=${1:-organism-ar}
guard=${2:-}
garak=${GARAK:-garak}
demur=${DEMUR:-demur}
port=${PORT:-8471}
probes=${PROBES:-promptinject,malwaregen}
work=$(mktemp -d)

"$demur" serve --model "$model" ${guard:+--guard "$guard"} --port "$port" >"$work/serve.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 60); do
    curl -fsS "http://127.0.0.1:$port/readyz" >/dev/null 2>&1 && break
    kill -0 "$server" 2>/dev/null || { cat "$work/serve.log"; exit 1; }
    sleep 1
done

sed "s|http://localhost:8000|http://127.0.0.1:$port|" "$here/garak.json" >"$work/garak.json"
OPENAICOMPATIBLE_API_KEY=${OPENAICOMPATIBLE_API_KEY:-none} "$garak" \
    --target_type openai.OpenAICompatible --target_name "$model" \
    --generator_option_file "$work/garak.json" \
    --probes "$probes" --generations 1 --report_prefix "$work/demur"
python3 - "$work/demur.report.jsonl" <<'PYTHON'
import json
import sys

rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
# Each attempt is there twice: as it began (1) and as it ended (2).
attempts = [row for row in rows if row["entry_type"] == "attempt" and row["status"] == 2]
lost = sum(answer is None for row in attempts for answer in row["outputs"] or [None])
print(f"{len(attempts)} attempts, {lost} without an answer")
sys.exit(bool(lost) or not attempts)
PYTHON
echo "Reports: $work"
