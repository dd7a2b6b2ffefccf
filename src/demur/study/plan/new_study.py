"""A commented study file to begin with: ``demur study init``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from demur.errors import InputError
from demur.files import write_atomically
from demur.organism import NAMES

_FILE = """\
# A study: models x samplers x prompts -> tables, figures and a page.
#   demur study plan {path}     what will run, and how long it takes
#   demur study run {path}      run it; the same command resumes it
# Paths are relative to this file. Every other section is in docs/howto/study.md and in the shipped
# studies: demur study plan organism, demur study plan paper.
title: A small study
seed: 0
batch_size: 8            # prompts at once; does not change results on a CPU
alpha: {alpha}              # false-positive rate of the guards; 0.01 needs 99 calibration prompts

# A model is a built-in name, a folder or a hub id. A sampler belongs to an arm, not to the model: the
# first arm is the main one, and an arm without a sampler keeps the model's default.
#   - name: mine
#     model: ./folder
#     arms:
#       - {{name: default}}
#       - {{name: random, sampler: {{remasking: random, steps: 64}}}}     # of a diffusion model
models:
{models}

# What each set is for: anchors (the signal), fit and calibration (guards; harmless prompts only), test.
# n: how many, from the start of the source. A source is a csv, tsv, jsonl, txt or parquet file,
# set:NAME, hub:ORG/NAME, or organism:SPLIT/KIND[/ATTACK] (prompts of the built-in models' world).
sets:
{sets}

# Refusal judges need no model; the first one decides which traces make the anchors. Of the harm
# judges, oracle knows the built-in world only; asked-harm asks a model (judges.model, judges.endpoint).
judges: {judges}
detectors: [sri, sri-standardised]
"""

_WORLD = """\
  anchors:
    - {source: "organism:anchors/harmless", n: 24}
    - {source: "organism:anchors/harmful", n: 24}
  fit: [{source: "organism:guard/harmless", n: 40}]
  calibration: [{source: "organism:calibration/harmless", n: 20}]
  test:
    - {source: "organism:test/harmless", n: 20}
    - {source: "organism:test/harmful", n: 10}
    # {each} is replaced by each name: attacks of the built-in world.
    - {source: "organism:test/harmful/{each}", each: [role_play, flip], n: 10}"""

_FILES = """\
  anchors:
    - {source: harmless.csv, label: harmless, n: 100}
    - {source: harmful.csv, label: harmful, n: 100}
  fit: [{source: benign_fit.csv, label: harmless, n: 200}]
  calibration: [{source: benign_calibration.csv, label: harmless, n: 100}]
  test:
    - {source: test_harmless.csv, label: harmless, n: 100}
    - {source: test_harmful.csv, label: harmful, n: 100}
    # attacks: names of demur attacks; each makes a set of its own.
    - {source: test_harmful.csv, label: harmful, n: 100, attacks: [role_play, flip]}"""


def new_study(path: Path, models: Sequence[str]) -> Path:
    """Write a commented study of these models. Returns the path.

    Built-in models get prompts of their world; other models get names of files to provide.

    Raises:
        InputError: the file is there already.
    """
    if path.exists():
        raise InputError(f"{path} is there already. Name another file, or remove it.")
    toys = all(model in NAMES for model in models)
    rows = [{"name": Path(model).name, "model": model} for model in models]
    listed = yaml.safe_dump(rows, sort_keys=False, default_flow_style=None, width=200)
    text = _FILE.format(
        path=path,
        alpha=0.05,
        models="".join(f"  {line}\n" for line in listed.splitlines()).rstrip(),
        sets=_WORLD if toys else _FILES,
        judges="{refusal: [paper, rules], harm: oracle}" if toys else "{refusal: [rules, paper]}",
    )
    write_atomically(path, text.encode())
    return path
