# Two commands do everything, set-up included: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test floor campaign check bench tables docs clean

demo: $(READY) ## compare agents in about two minutes: a table, and a page
	@$(BIN)/python -m rlseq demo

test: $(READY) ## all tests
	@echo "Running the tests (about twelve minutes on two cores)…"
	@$(BIN)/python -m pytest -q -n auto --dist loadfile

# Agents differ above the model: a few of them stand for all.
FLOOR := not an_agent_trains_a_pretrained_model or mle or scst or ppo or rloo

floor: $(READY) ## the tests of pretrained models with the oldest transformers that is supported
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/floor transformers==5.18.0
	@PYTHONPATH=build/floor $(BIN)/python -m pytest -q -n auto --dist loadfile -k "$(FLOOR)" tests/pretrained

campaign: $(READY) ## the hostile trials of tests/campaigns in full, counts written to benchmarks/results/campaigns/
	@RLSEQ_CAMPAIGN=full $(BIN)/python -m pytest -q -n auto --dist loadfile tests/campaigns

check: $(READY) ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY) ## learning, written to benchmarks/results/
	$(BIN)/python benchmarks/solve_copy.py

tables: $(READY) ## the tables in README.md and docs/, from benchmarks/results/
	$(BIN)/python benchmarks/tables.py

docs: $(READY) ## the documentation, in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info

# The environment is made once, and again only when what it is made from changes.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with the versions in constraints.txt (once; torch is the large part)…"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "rlseq needs Python 3.10 or newer, got " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,docs]'
	@touch $@
	@echo "Done."
