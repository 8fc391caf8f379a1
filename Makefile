# make demo   set up .venv (without torch) and run the shipped example, down to its verdict
# make test   set up .venv with the test tools, then lint, type-check and test everything
# make lint   the linter and the type checker only
# make clean  remove .venv and everything generated
#
# PYTHON=/path/to/python3.12 picks the interpreter. Packages install once; again only when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	@$(BIN)/python examples/tiny_lm/demo.py

test: lint
	$(BIN)/python -m pytest --quiet

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/mypy $(wildcard tests examples benchmarks)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The test tools come on top of what the demo needs, so one install serves both.
$(VENV)/.installed-test: pyproject.toml | $(VENV)/.created
	@echo "installing flexc and its test tools into $(VENV)"
	@$(PIP) install --editable '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "installing flexc into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { echo "error: no '$(PYTHON)' here; try: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: flexc needs Python >= 3.11," \
	    "'$(PYTHON)' is $$($(PYTHON) -V 2>&1); try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: '$(PYTHON) -m venv' failed; install Python's venv module" >&2; exit 1; }
	@touch $@
