# Two commands for a newcomer: make demo, make test. Both start from nothing but Python 3.11 and make.
PYTHON ?= python3
PIP := .venv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt

demo: .venv/.demur
	.venv/bin/demur demo --out demo

test: .venv/.dev
	.venv/bin/python -m pytest -n 2 --dist loadfile --durations 10

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

clean:
	rm -rf .venv demo dist

.PHONY: demo test lint bench clean
