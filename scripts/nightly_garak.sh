#!/usr/bin/env bash
# A real garak run against `demur serve` on loopback, for a nightly job: with a guard and without.
# Needs: pip install garak, in an environment of its own (it pins many packages).
#   scripts/nightly_garak.sh organism-ar guard.safetensors
set -euo pipefail
model=${1:-organism-ar}
guard=${2:-}
garak=${GARAK:-garak}
demur=${DEMUR:-demur}
port=${PORT:-8471}
probes=${PROBES:-dan.DanInTheWild,promptinject}
work=$(mktemp -d)

"$demur" serve --model "$model" ${guard:+--guard "$guard"} --port "$port" >"$work/serve.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 60); do
    curl -fsS "http://127.0.0.1:$port/readyz" >/dev/null 2>&1 && break
    kill -0 "$server" 2>/dev/null || { cat "$work/serve.log"; exit 1; }
    sleep 1
done

cat >"$work/garak.json" <<JSON
{"openai": {"OpenAICompatible": {"uri": "http://127.0.0.1:$port/v1/", "max_tokens": 64}}}
JSON
OPENAICOMPATIBLE_API_KEY=${OPENAICOMPATIBLE_API_KEY:-none} "$garak" \
    --target_type openai.OpenAICompatible --target_name "$model" \
    --generator_option_file "$work/garak.json" \
    --probes "$probes" --generations 1 --report_prefix "$work/demur"
echo "Reports: $work"
