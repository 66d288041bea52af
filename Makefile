# Everything runs in .venv, which is made on the first call.  Needs Python 3.11 or newer and make, nothing else.
# Each target installs what it runs: the demo the package alone, the tests and the checks their tools besides.

VENV := .venv
PY := $(VENV)/bin/python
# The first of these that is new enough; or name one: make demo PYTHON=/usr/local/bin/python3.12
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
READY := $(VENV)/.ready
READY_TEST := $(VENV)/.ready-test
READY_DEV := $(VENV)/.ready-dev

.PHONY: demo test lint check ci nightly fidelity mutants goldens bench claims pages site clean
.DEFAULT_GOAL := demo

demo: $(READY)  ## one question, answered
	@$(VENV)/bin/apexsim plan llama-3.1-70b-instruct --gpu h100-sxm --gpus 8 --trace example:creation

test: $(READY_TEST)  ## all tests, on every core
	@$(PY) -m pytest -n auto --dist worksteal

lint: $(READY_DEV)  ## style and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet src tests scripts bench
	@$(PY) -m mypy

check: lint  ## style, types, tests
	@$(PY) -m pytest -n auto --dist worksteal

ci: $(READY_DEV)  ## all that a change must pass; what needs one core runs side by side
	@$(MAKE) --no-print-directory --jobs=2 lint fidelity
	@$(PY) -m pytest -n auto --dist worksteal

nightly: $(READY_DEV)  ## 100,000 hostile inputs, hostile surroundings, and physics on every GPU; an hour or two
	@$(PY) scripts/attack.py --cases 100000 --jobs $$($(PY) -c 'import os; print(os.cpu_count())')
	@$(PY) scripts/attack_processes.py
	@$(PY) scripts/scan_physics.py

fidelity: $(READY)  ## errors against measured systems; fails when one has grown
	@$(PY) -m apexsim.validate.gate

mutants: $(READY_TEST)  ## wrong lines put into copies of the code: fails when no test sees one
	@$(PY) scripts/mutants.py

goldens: $(READY_TEST)  ## three hundred questions asked again: fails when an answer differs
	@$(PY) scripts/goldens.py check tests/golden/questions.json

bench: $(READY_TEST)  ## speed
	@$(PY) bench/run.py

claims: $(READY)  ## the study of the APEX paper again, into docs/claims.md
	@$(PY) bench/claims.py --page docs/claims.md

pages: $(READY)  ## outputs and pictures in README.md and docs/, made again
	@$(PY) scripts/pages.py

site: $(READY)  ## the documents as a site, in build/site
	@$(PY) -c 'import material' 2>/dev/null || $(PY) scripts/install.py docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

clean:  ## everything that can be made again
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "apexsim needs Python 3.11 or newer and found none; name one with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("apexsim needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0])'
	@echo "making $(VENV) with $(PYTHON), once; downloads take a minute or so"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "cannot make a virtual environment: on Debian and Ubuntu install python3-venv" >&2; exit 1; }

$(READY): pyproject.toml | $(VENV)/bin/python
	@echo "installing apexsim"
	@$(PY) scripts/install.py
	@touch $@

$(READY_TEST): $(READY)
	@echo "installing what the tests need"
	@$(PY) scripts/install.py test
	@touch $@

$(READY_DEV): $(READY)
	@echo "installing what the checks need"
	@$(PY) scripts/install.py dev
	@touch $@
