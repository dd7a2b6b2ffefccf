# For a newcomer: make watch, make demo, make test. They start from nothing but Python 3.11 and make.
PYTHON ?= python3
# On a machine without a GPU, PyTorch's CPU wheels are enough and save gigabytes:
#   make watch TORCH_INDEX=<the CPU index that PyTorch documents>
TORCH_INDEX ?=
PIP := .venv/bin/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

watch: .venv/.demur
	.venv/bin/demur watch

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

docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --site-dir site

# Each reader of files of others, for so many seconds.
SECONDS ?= 60
fuzz: .venv/.dev
	.venv/bin/python tests/fuzz/readers.py $(SECONDS)

package: .venv/.dev
	scripts/package.sh

bench: .venv/.dev
	.venv/bin/python -m benchmarks --out benchmarks/results

.venv/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and "demur needs Python 3.11 or newer; this is %d.%d. Run: make PYTHON=python3.11" % v)'
	@echo "1 of 3: creating .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv

.venv/.demur: .venv/bin/python pyproject.toml constraints.txt
	@echo "2 of 3: downloading and installing demur and what it needs; some minutes, once"
	@$(PIP) -e .
	@echo "3 of 3: compiling what is used"
	@.venv/bin/demur watch >/dev/null 2>&1
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "2 of 2: downloading and installing demur and the test tools; some minutes, once"
	@$(PIP) -e '.[dev]'
	@touch $@ .venv/.demur

.venv-oldest/.dev: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --disable-pip-version-check -q -c constraints-oldest.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-oldest demo dist site

.PHONY: watch demo test oldest lint docs fuzz package bench clean
