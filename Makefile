# Two commands do all the set-up: `make demo`, `make test`.
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs

.PHONY: demo test lint check results bench worlds install clean clean-runs

install: $(VENV)/.installed

# PyTorch first and by itself, so that it is the build that your index offers: see README.md, Start.
$(VENV)/.installed: requirements.txt pyproject.toml
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "swirl needs Python 3.11 or later, found " + sys.version.split()[0])'
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

worlds: $(VENV)/.worlds  ## the packages of all worlds; Java and Chromium are the system's, `swirl worlds` names the commands

$(VENV)/.worlds: requirements-worlds.txt $(VENV)/.installed
	$(BIN)/pip install --quiet --no-deps --requirement requirements-worlds.txt
	touch $@

demo: install  ## the default recipe on MiniGrid, one seed; fails unless both roles end above their warm-up
	$(BIN)/swirl train recipes/minigrid.toml --out $(RUNS)/demo --require-gain

test: install  ## every test, in two processes; those of one file share what they build, and the slowest files begin
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: install  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

check: lint  ## and the fast tests
	$(BIN)/python -m pytest -m "not slow and not java and not browser"

results: install  ## the published tables, every seed; what is finished is not run again
	failed=0; for table in results planning agents; do \
		$(BIN)/python benchmarks/$$table.py --runs $(RUNS)/results || failed=1; \
	done; exit $$failed

bench: install  ## cost of a phase step, of scoring and of relabelling, as ratios, into docs/cost.md
	$(BIN)/python benchmarks/cost.py

clean:  ## what `make install` made; runs, hours of training, are left
	rm -rf $(VENV)

clean-runs:  ## every run in $(RUNS)
	rm -rf $(RUNS)
