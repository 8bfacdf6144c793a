# What to do with pneumolib from a fresh clone; needs Python 3.11-3.13 and make, nothing else.
PRESET ?= auto
export PYTHON

.PHONY: help run test test-library test-notebooks lint format types notebooks bench detector ends clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo '  PYTHON=python3.12 names the interpreter, PRESET=full|cpu|quick|ci the settings of `make run`,'
	@echo '  PNEUMOLIB_DATA=FOLDER_OR_ZIP where the X-rays are.'

run: .venv/.run ## run the series of notebooks, end to end, on the data found; write HTML
	@.venv/bin/pneumolib series --preset $(PRESET)

test: test-library test-notebooks ## run all tests

test-library: .venv/.dev ## run the tests and the examples in the docstrings
	@.venv/bin/python -m pytest --quiet

test-notebooks: .venv/.dev ## run the notebooks and compare what they promise
	@.venv/bin/python -m pytest --quiet --nbval-lax --nbval-current-env --nbval-cell-timeout=600 \
	  --nbval-sanitize-with notebooks/nbval.cfg notebooks

lint: .venv/.dev ## check style and format
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .

format: .venv/.dev ## put style and format right where that can be done by rule
	@.venv/bin/ruff check --fix --quiet .
	@.venv/bin/ruff format --quiet .

types: .venv/.dev ## check the types
	@.venv/bin/mypy --no-error-summary

notebooks: .venv/.dev ## sync the pairs, run them (preset ci, phantom), store clean outputs
	@.venv/bin/python tools/notebooks.py execute

bench: .venv/.dev ## measure what the README says of speed
	@for name in decoding dicom feeding files startup export serving endurance corpora; do \
	  .venv/bin/python benchmarks/$$name.py || exit 1; done

detector: .venv/.dev ## train the detector that ships again, with three seeds, and measure it: one to two hours on two cores
	@.venv/bin/python benchmarks/accuracy.py --json benchmarks/results/cpu.json --ship

ends: .venv/.dev ## test with the lowest and the highest version of everything that is declared
	@tools/ends.sh

clean: ## remove what was made here: environments, caches, artefacts
	rm -rf .venv .venv-* artifacts notebooks/artifacts build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A changed pyproject.toml installs anew; without a change, a second call costs nothing.
.venv/.run .venv/.dev: pyproject.toml tools/setup.sh
	@sh tools/setup.sh $(subst .venv/.,,$@)
