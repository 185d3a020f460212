# make demo | test | lab | build | check | browser | bench | clean     (each needs nothing but Python 3.11+ and make)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lab build check browser bench clean
.DEFAULT_GOAL := demo

demo: $(READY)                    ## build, release, submit, grade and report Lab 1 in demo/ (in a sandbox if there is bubblewrap)
	$(BIN)/course demo lab1

test: $(READY)                    ## style, notebooks up to date and free of leaks, unit tests, every notebook executed
	$(BIN)/ruff check . && $(BIN)/course build --check && $(BIN)/python -m pytest $(PYTEST_OPTIONS)

lab: $(READY)                     ## JupyterLab on the students' notebooks
	$(BIN)/jupyter lab labs/

build: $(READY)                   ## rebuild every notebook from its text source
	$(BIN)/course build

check: $(READY)                   ## are the committed notebooks those of the sources?
	$(BIN)/course build --check

browser: $(READY)                 ## Lab 1 in a real browser; needs Chromium (Debian: apt install chromium)
	$(BIN)/python -m pytest -m browser

bench: $(READY)                   ## measured comparisons with named peers
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) demo build

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing. On Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "Setting up $(VENV): one to four minutes, several GB because of PyTorch; once only."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@
