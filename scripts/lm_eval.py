"""Capability of a model behind `demur serve`, with and without a guard, by EleutherAI's harness.

    pip install 'lm_eval[api]'
    demur serve --model organism-ar --guard guard.safetensors --port 8000 &
    python scripts/lm_eval.py --model organism-ar --port 8000 --tasks gsm8k --limit 100

Only tasks that generate text can run: the server gives no log-probabilities. A guard costs capability
where it stops harmless answers, so compare with the same command against a server without one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

if __name__ == "__main__":
    options = argparse.ArgumentParser(description="Run lm-eval against demur serve.")
    options.add_argument("--model", required=True, help="As the server names it.")
    options.add_argument("--port", type=int, default=8000)
    options.add_argument("--tasks", default="gsm8k")
    options.add_argument("--limit", type=int, default=100)
    given = options.parse_args()
    url = f"http://127.0.0.1:{given.port}/v1/chat/completions"
    model_args = f"model={given.model},base_url={url},num_concurrent=8,tokenized_requests=False"
    command = ["lm_eval", "--model", "local-chat-completions", "--model_args", model_args]
    command += ["--tasks", given.tasks, "--limit", str(given.limit), "--apply_chat_template"]
    sys.exit(subprocess.run(command).returncode)
