# Each target works as the first command on a machine with Python 3.10+ and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit qa faults bench wheels docs notebook dist audit clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-8s %s\n", $$1, $$2}'

# Built again only when what is to be installed changes.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP) ## Train and evaluate every method on real digits (one to three minutes on two cores)
	rm -rf results/demo
	$(BIN)/art-lbgat demo --output results/demo

test: lint types unit ## Everything: lint, types, tests with coverage

lint: $(STAMP) ## ruff: lint and format; import-linter: the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(STAMP) ## mypy --strict on the package
	$(BIN)/mypy

unit: $(STAMP) ## pytest with coverage (at least 95 % of the lines)
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=art_lbgat --cov-report=term --cov-fail-under=95

qa: $(STAMP) ## Short versions of the faults and benchmarks, and the hostile files, as tests
	$(BIN)/python -m pytest qa

faults: $(STAMP) ## Inject every fault of docs/reliability.md and write its table (about 10 minutes)
	$(BIN)/python -W ignore -m qa.faults

bench: $(STAMP) ## Time steps, memory, start-up, evaluation and data against others (about 12 minutes)
	$(BIN)/python -m qa.benchmarks

wheels: $(STAMP) ## Wheels for scripts/gpu_study.py on a machine without a network, into results/wheels (torch apart)
	mkdir -p results
	$(BIN)/python -c "from scripts.gpu_study import wheel_list; print(*wheel_list(), sep='\n')" > results/wheels.txt
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w results/wheels -r results/wheels.txt

docs: $(STAMP) ## Build the docs into docs/_build, warnings being errors; check their links, run their code
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	$(BIN)/python -m pytest -q tests/test_docs.py

# Without warnings (progress bars look for widgets) and times, so that outputs change only where results do.
notebook: $(STAMP) ## Run examples/boundary_tour.ipynb again (installs nbconvert and ipykernel)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt nbconvert ipykernel
	OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter nbconvert --to notebook --execute \
		--inplace --ExecutePreprocessor.record_timing=False examples/boundary_tour.ipynb

dist: $(STAMP) ## Wheel and sdist into dist/, built and checked as an index does
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/twine check --strict dist/*

audit: $(STAMP) ## Known vulnerabilities of the pinned packages (pip-audit asks PyPI; needs the network)
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt 2> $(VENV)/audit.log \
	&& tail -n 1 $(VENV)/audit.log || { grep -h '^Found' $(VENV)/audit.log || echo "audit: nothing was checked, PyPI's vulnerabilities cannot be" \
	"had: $$(tail -n 1 $(VENV)/audit.log)"; exit 1; }

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist docs/_build results .coverage* htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
