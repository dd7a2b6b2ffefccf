# Two commands for a newcomer: make demo, make test. Both start from nothing but Python 3.11 and make.
PYTHON ?= python3
PIP := .venv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt

demo: .venv/.demur
	.venv/bin/demur demo --out demo

test: .venv/.dev
	.venv/bin/python -m pytest -n 2 --dist loadfile --durations 10

# The same suite on the oldest transformers that demur works with.
oldest: .venv-oldest/.dev
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/.dev
	.venv/bin/python -m benchmarks --out benchmarks/results

.venv/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and "demur needs Python 3.11 or newer; this is %d.%d. Run: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv .venv

.venv/.demur: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	touch $@ .venv/.demur

# transformers 4.57 needs older companions than the pinned ones.
.venv-oldest/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-oldest
	grep -vE '^(transformers|tokenizers|huggingface|datasets|fsspec)' constraints.txt > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --disable-pip-version-check -q -c .venv-oldest/constraints.txt -e '.[dev]' 'transformers==4.57.*'
	touch $@

clean:
	rm -rf .venv .venv-oldest demo dist

.PHONY: demo test oldest lint bench clean
