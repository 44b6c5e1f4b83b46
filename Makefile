# `make quickstart` and `make test` need Python 3.11 or 3.12 and make, and set up the rest in $(VENV) on first use.
VENV ?= .venv
# The first of these that runs and is 3.11 or 3.12; say `make PYTHON=/path/to/python` to choose another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
# Settings of the training run: `make quickstart ARGS="seed=1"`.
ARGS ?=

BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock"
LOCK := $(COMPILE) pyproject.toml requirements/torch-needs.in
# The extra `docs` without what the project itself asks for.
DOCS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")
DEV := --extra cpu --extra dev --extra docs --extra textworld_express --extra scienceworld --extra optuna
SETUP := requirements/install.py pyproject.toml requirements/torch-cpu.txt
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow test-smoke test-browser fuzz test-commands test-others lint docs format lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.ready-cpu: $(SETUP) requirements/cpu.txt
	@$(call install,cpu)
	@touch $@

$(VENV)/.ready-dev: $(SETUP) requirements/dev.txt requirements/dev-textworld.txt
	@$(call install,dev)
	@touch $@

# Light: neither torch nor this project. dev.txt holds the same pins, so one environment can be both.
$(VENV)/.ready-docs: requirements/install.py pyproject.toml requirements/docs.txt
	@$(call install,docs)
	@touch $@

define install
test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or 3.12, found" \
	"$$(python3 --version 2>/dev/null || echo none). Install one, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
$(PYTHON) requirements/install.py --venv $(VENV) $(1)
endef

quickstart: $(VENV)/.ready-cpu  ## a tiny agent learns household tasks on the CPU, in minutes
	$(BIN)/proxmo train tuned_examples/quickstart.py $(ARGS)

test: $(VENV)/.ready-dev  ## the quick tests
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

test-slow: $(VENV)/.ready-dev  ## the tests with real Ray clusters, vLLM engines and learning
	$(BIN)/python -m pytest -m slow $(ARGS)

fuzz: $(VENV)/.ready-dev  ## ten thousand wrong inputs for everything that is read from outside: half an hour or more
	PROXMO_FUZZ_EXAMPLES=10000 $(BIN)/python -m pytest tests/fuzz --timeout 0 $(ARGS)

test-smoke: $(VENV)/.ready-dev  ## those of the slow tests that stand for all of them: six minutes
	$(BIN)/python -m pytest -m smoke $(ARGS)

test-browser: $(VENV)/.ready-dev  ## the viewer's page in headless Chromium (apt-get install chromium chromium-driver)
	$(BIN)/python -m pytest -m browser $(ARGS)

test-commands: $(VENV)/.ready-dev  ## type the long commands of the docs: hours
	$(BIN)/python -m pytest -m commands $(ARGS)

test-others: $(VENV)/.ready-dev  ## install TRL, verl, verifiers, OpenEnv, SmolLM2 and an S3 server, each beside $(VENV), and test with them
	$(BIN)/python tests/others/environments.py $(VENV) $(ARGS)

lint: $(VENV)/.ready-dev  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.ready-docs  ## the docs as a site in build/site; a broken link or anchor is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)
	@echo "$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site   shows it on http://127.0.0.1:8000"

format: $(VENV)/.ready-dev  ## rewrite the files in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.ready-dev  ## resolve requirements/*.txt anew; pins that still fit are kept
	$(BIN)/pip install --quiet uv
	$(LOCK) --override requirements/overrides.txt --extra cpu -o requirements/cpu.txt
	$(LOCK) --override requirements/overrides.txt $(DEV) -c requirements/cpu.txt -o requirements/dev.txt
	$(BIN)/python -c '$(DOCS)' | $(COMPILE) - -c requirements/dev.txt -o requirements/docs.txt
	grep -v '^textworld' requirements/overrides.txt > $(VENV)/overrides.txt
	$(LOCK) --override $(VENV)/overrides.txt $(DEV) --extra textworld -c requirements/dev.txt \
		-o requirements/dev-textworld.txt

clean:  ## remove the virtual environment and caches, not the runs
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
