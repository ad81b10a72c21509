# On a fresh machine: `make digits`, `make domainnet` and `make tasks` run the benchmarks, `make test` the checks.
# Each sets up .venv; what they write lies in runs/ and data/. `make wheel` tries the package as users get it, `make docs` builds the site.
PYTHON ?= python3
PROFILE ?= quick
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1

.PHONY: digits digits-full domainnet domainnet-full tasks tasks-full report test lint docs wheel setup clean

digits: setup
	$(BIN)/da-compose bench digits --profile $(PROFILE)

digits-full: PROFILE = full
digits-full: digits

# Without DomainNet's files: the emoji benchmark, and it says so
domainnet: setup
	$(BIN)/da-compose bench domainnet --profile $(PROFILE)

domainnet-full: PROFILE = full
domainnet-full: domainnet

# Signatures, depth, nine tasks on one bank, transfer to new ones
tasks: setup
	$(BIN)/da-compose bench tasks --profile $(PROFILE)

tasks-full: PROFILE = full
tasks-full: tasks

# Of the committed results, which `da-compose publish runs/digits` adds to
report: setup
	$(BIN)/da-compose report --readme README.md

test: setup lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Into build/site, strictly: no warning, no broken link
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: setup
	.ci/wheel

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build runs data/prepared
