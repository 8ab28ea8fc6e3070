# The interface of the checkout. `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
PY := .venv/bin/python
# Unit tests share the cores; those with models want them all.
UNIT := -n auto -m "not model and not train and not gpu"

.PHONY: setup demo test check format bench docs help
.DEFAULT_GOAL := help

help:  ## show the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 10

setup:  ## make .venv with all that this machine can use, fetch the base models
	@$(PYTHON) tools/setup.py

demo: setup  ## tag the sample's test products through vLLM and score them
	@$(PY) -m serve.demo

test: setup  ## all tests: unit tests and those with the fetched models
	@$(PY) -m pytest $(UNIT) --cov --cov-report=
	@$(PY) -m pytest -m "model or train or gpu" --cov --cov-append --cov-report=term

check: setup  ## format, lint, types, unit tests
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -m pytest $(UNIT)

format:  ## rewrite the files as `make check` wants them
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: setup  ## the short forms of the benchmarks
	@$(PY) -m bench constraint --short
	@$(PY) -m bench decode --short
	@$(PY) -m bench catalogue --short

docs: setup  ## the site of docs/ in build/site, links checked
	@$(PY) -c "import material, mkdocstrings_handlers.python" 2>/dev/null || $(PY) -m pip install --quiet --editable ".[docs]"
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
