# A fresh machine needs Python 3.11 to 3.13 and make; everything else is installed into .venv by these rules.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types pages unit cover perf gpu faults fuzz install clean

demo: install
	$(BIN)/bench run datasets/shapes/demo.yaml
	@echo
	@echo 'Where to look next:'
	@echo '  leaderboards/shapes.html   this table as a page: intervals, ties, costs, captions on which the papers disagree'
	@echo '  docs/first-run.md          what the lines above say, and the commands that follow'
	@echo '  $(BIN)/bench list      the methods, data sets and records that are here'
	@echo '  $(BIN)/bench ui        curves and captions of every run in MLflow'

test: install lint types pages unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet -c pyproject.toml -r bench methods

types: install
	$(BIN)/mypy

pages: install
	$(BIN)/bench leaderboard --check

unit: install
	$(BIN)/python -m pytest -n 2

# Which lines and branches of bench/ no test reaches; takes half as long again as the tests.
cover: install
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term

# Speed and memory beside their bars, with a JSON file and a picture in tests/perf/results; nothing else should run meanwhile.
perf: install
	$(BIN)/python -m tests.perf

# The same numbers as on the CPU, exact resume, and speed, on a machine with a GPU: at most eight minutes, nothing is installed.
gpu:
	$(PYTHON) -m tests.gpu

# kill -9 at two hundred moments, disks that fail, clocks that jump, and whether anything is lost: forty minutes on two
# busy cores, best in the background; goes on where it was stopped. tests.faults.kills does the same to Ray's own processes.
faults: install
	$(BIN)/python -m tests.faults

# Ten thousand damaged inputs for each reader, five thousand odd sets of captions for the metrics; goes on where it was stopped.
fuzz: install
	$(BIN)/python -m tests.fuzz

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml deploy/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c deploy/constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .bench
