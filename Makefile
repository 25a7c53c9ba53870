# Two commands matter: `make run` and `make test`. Both install what they need into .venv.

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin

.PHONY: run test check format install bench replay lock clean

run: install ## serve on 127.0.0.1:$(PORT) with a demo partner and its key
	@$(BIN)/tether demo --port $(PORT)

test: install ## the whole suite, on a real PostgreSQL and a real Redis
	$(BIN)/python -m pytest

check: install ## style, types, formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: install ## measures against peers and ceilings; see bench/README.md for what it needs
	$(BIN)/python -m bench.run

replay: install ## a year of real charging sessions through the API of a running server
	@$(BIN)/tether replay

install: .venv/installed

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tether needs Python 3.11 or newer; name one with PYTHON=…"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what Tether needs into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock: ## pins everything that we install, with hashes, for all platforms and Pythons
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --system-certs \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--extra server --extra dev --output-file requirements.txt pyproject.toml

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist src/*.egg-info
