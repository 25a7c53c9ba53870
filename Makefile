# The two main commands are `make run` and `make test`. Both install what they need into .venv; the
# first installs only the packages of the server and the command.

PYTHON ?= python3
PORT ?= 8000
MINUTES ?= 10
DATABASE ?= sqlite
TETHER_URL ?= http://127.0.0.1:$(PORT)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Three processes for two cores, because tests that wait use no processor.
TESTS := pytest -n 3 --dist loadfile --no-loadscope-reorder
LOCK := $(BIN)/uv pip compile pyproject.toml --extra server --group build --quiet --universal \
	--python-version 3.11 --generate-hashes --system-certs --custom-compile-command "make lock"

.PHONY: release run vendor screenshots test test-quick test-newest coverage check format unasync figures install bench soak drill replay lock clean

run: .venv/runs ## serve on 127.0.0.1:$(PORT) with a demo partner and its key
	@$(BIN)/tether demo --port $(PORT)

test: install ## the whole suite, on a real PostgreSQL and a real Redis
	$(BIN)/python -m $(TESTS)

test-quick: install ## the rules, and the API over HTTP on SQLite: under two minutes
	$(BIN)/python -m $(TESTS) tests/unit tests/api -k "not postgres" --ignore tests/api/test_openapi_tools.py

coverage: install ## the coverage of each file and room by some tests, in servers and commands, too: a minute
	@rm -rf .coverage
	$(BIN)/coverage run -m $(TESTS) \
		tests/unit tests/store/test_contract.py tests/derivation/test_changes.py tests/cli/test_keys.py \
		tests/cli_partner/test_round_trip.py tests/console/test_signing_in.py $(addprefix tests/client/test_,http.py surface.py) \
		$(addprefix tests/api/test_,bulk.py capacity.py sessions.py states.py stream.py tenancy.py) \
		-k "not postgres or test_contract"
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --skip-empty
	@for room in src/tether/*/__init__.py; do \
		room=$${room%/__init__.py}; \
		echo "$$room: $$($(BIN)/coverage report --include="$$room/*" --format=total) %"; \
	done

test-newest: install ## the tests of HTTP with the newest Uvicorn in place of the pinned one
	$(PIP) install --upgrade --no-deps --target .newest uvicorn
	PYTHONPATH=.newest $(BIN)/python -c 'import uvicorn; print("Uvicorn", uvicorn.__version__)'
	PYTHONPATH=.newest $(BIN)/python -m pytest -n 2 --dist loadfile tests/unit/test_exchange.py \
		tests/api/test_wire.py tests/api/test_body_sizes.py tests/abuse/test_smuggling.py \
		tests/faults/test_stalled_clients.py tests/faults/test_stopping.py tests/faults/test_hanging_up.py

check: install ## style, types, formatting, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/figures.py --check
	$(BIN)/python scripts/analysis.py --check
	$(BIN)/python scripts/unasync.py --check

figures: install ## draws the figures of the documents, and computes the tables of docs/analysis.md
	$(BIN)/python scripts/figures.py
	$(BIN)/python scripts/analysis.py

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

unasync: install ## generates the blocking half of the SDK from the async half
	$(BIN)/python scripts/unasync.py

bench: install ## measures against peers and ceilings; see bench/README.md for what it needs
	$(BIN)/python -m bench.run

soak: install ## $(MINUTES) minutes of three hostile partners beside a good one, on SQLite or with DATABASE=postgres
	$(BIN)/python -m bench.soak --minutes $(MINUTES) --database $(DATABASE)

drill: install ## loses a leader under Patroni, and moves a million events to PostgreSQL, both under load
	$(BIN)/python -m pytest -q -s tests/drills/failover.py tests/drills/million.py

screenshots: install ## draws the pictures of docs/console.md in Chromium, with the real data
	$(BIN)/python scripts/screenshots.py

vendor: ## fetches the third-party files of the pages and of the browser tests with npm
	$(PYTHON) scripts/vendor.py

replay: .venv/runs ## sends a year of real charging sessions to a running server
	@TETHER_URL=$(TETHER_URL) $(BIN)/tether replay

release: install ## builds the wheel, installs it in an empty environment and makes the first calls
	@rm -rf build dist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python scripts/try_release.py dist/*.whl

install: .venv/installed ## installs everything that the targets above need

.venv/runs: requirements-run.txt pyproject.toml
.venv/installed: requirements.txt pyproject.toml
.venv/runs .venv/installed:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tether needs Python 3.11 or newer. Name one, such as: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what Tether needs into .venv …"
	@$(PIP) install --require-hashes -r $<
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

lock: ## pins all packages that we install, with hashes, for all platforms and versions of Python
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(PIP) install uv
	@$(LOCK) --extra dev --output-file requirements.txt
	@$(LOCK) --constraints requirements.txt --output-file requirements-run.txt

clean:
	rm -rf .venv .newest .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage build dist src/*.egg-info
