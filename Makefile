# Everything lives inside the clone: .venv, .aiida (profile and jobs) and .cache. Nothing is written to the home folder.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ROOT := $(CURDIR)
BIN := $(ROOT)/.venv/bin
WORKERS ?= 2
STAMP := $(ROOT)/.venv/installed
EXTRAS := mace,quantumespresso,vasp,cp2k,tblite,soap,augment,random,report,dev

export AIIDA_PATH := $(ROOT)/.aiida
export XDG_CACHE_HOME := $(ROOT)/.cache
export XDG_CONFIG_HOME := $(ROOT)/.cache/config
export MPLCONFIGDIR := $(ROOT)/.cache/matplotlib
export PIP_CACHE_DIR := $(ROOT)/.cache/pip
export PRE_COMMIT_HOME := $(ROOT)/.cache/pre-commit
export OMP_NUM_THREADS ?= 1
export PATH := $(BIN):$(PATH)

.PHONY: help install quickstart silicon test lint clean
help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(STAMP) ## make .venv with the tested versions

# pip older than 24 stumbles over extras that name each other, so it is upgraded first.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(ROOT)/.venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $(STAMP)

quickstart: $(STAMP) ## learn a potential for ethanol from one structure, about seven minutes on two cores
	$(BIN)/python examples/quickstart/run.py

silicon: $(STAMP) ## the same for silicon with DFT labels by pw.x, and elastic constants, about 40 minutes on two cores
	$(BIN)/python examples/silicon_dft/run.py

test: $(STAMP) ## run all tests, two files at a time (WORKERS=2)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile

lint: $(STAMP) ## formatting, style, types, spelling
	$(BIN)/pre-commit run --all-files --show-diff-on-failure

clean: ## stop the daemon and remove everything that the commands above made
	-test -x $(BIN)/verdi && $(BIN)/verdi daemon stop
	rm -rf $(ROOT)/.venv $(ROOT)/.aiida $(ROOT)/.cache
