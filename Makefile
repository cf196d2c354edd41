# make check: everything that must pass, from nothing, in a virtual environment of its own.
# make test T=tests/core: some tests. make lock: pin requirements/dev.in anew.
# make full: everything that takes longer, too: runs killed at random moments, real clients, memory over many questions.
# make clients: real OpenAI clients, unchanged, against `tts-search serve`; each in an environment of its own.

VENV ?= .venv
PYTHON ?= python3
T ?= tests
WORKERS ?= 2
BIN := $(VENV)/bin

.PHONY: check install lint types test full clients lock clean

check: install lint types test

install: $(VENV)/.installed

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/pyright --pythonpath $(BIN)/python

test: install
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(T)

full: check clients
	for what in compare sample solve search_many; do for engine in fake embedded; do \
		$(BIN)/python benchmarks/kill_and_resume.py --what $$what --engine $$engine --times 50 || exit 1; done; done
	for what in fit-head train reproduce; do \
		$(BIN)/python benchmarks/kill_and_resume.py --what $$what --engine embedded --times 10 || exit 1; done
	$(BIN)/python benchmarks/kill_and_resume.py --what search_many --engine vllm --times 5
	$(BIN)/python benchmarks/many_questions.py

clients: install
	$(BIN)/python tools/clients/run.py

lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile requirements/dev.in --override requirements/overrides.txt --python-version 3.11 \
		--no-emit-package tts-search --no-annotate --no-header $(LOCK_FLAGS) | sed 's/+cpu$$//' > requirements/dev.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
