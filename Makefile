# make setup       the virtual environment, CPU stack (DEVICE=cuda: the CUDA stack)
# make quickstart  the main job end to end on synthetic data
# make test lint   what CI runs
# make formats     every retriever in the formats of other engines; `make test` takes some
# make bench       every benchmark that needs no data set
# make mutants     small changes to the code that tests must notice: MODULE="recsys/lists" MINUTES=30
# make gpu-wheels  what a machine with a GPU and torch lacks, in gpu-wheels/: see docs/scale.md
# make results     the tables of docs/results.md: DATA=folder of the data sets; without it, the tables alone
PYTHON ?= python3
DEVICE ?= cpu
BIN := .venv/bin
STAMP := .venv/.installed-$(DEVICE)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint requirements/constraints.txt
# The alias stands in for fbgemm's CUDA wheel, which pip would fetch otherwise.
cpu_alias := ./requirements/fbgemm-gpu-alias
cuda_alias :=

.PHONY: setup quickstart test formats browser redis lint bench results peers mutants gpu-wheels clean

# Asked for by name it always brings the environment back to the pins; as a prerequisite it
# runs when they changed.
setup: install
$(STAMP): pyproject.toml $(wildcard requirements/*.txt requirements/*/*)
	$(MAKE) install

.PHONY: install
install:
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the $(DEVICE) stack into .venv (a few minutes the first time)"
	$(PIP) $($(DEVICE)_alias) --editable '.[$(DEVICE),dev]'
	@$(BIN)/python -m pip check
	@touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/recsys run pipelines/configs/synthetic_quickstart.toml

test: $(STAMP) browser redis
	$(BIN)/python -m pytest

formats: $(STAMP)
	EVERY_RETRIEVER=1 $(BIN)/python -m pytest tests/recsys/formats

# One test opens a report in a browser; root on Debian gets one, others do without.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& echo "installing chromium for the test of the report" \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	} || echo "no chromium: the test that opens a report in a browser is skipped"

# Stores of users are also tested in a Redis of the tests' own.
redis:
	@command -v redis-server >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& echo "installing redis-server for the tests of stores of users" \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends redis-server >/dev/null; \
	} || echo "no redis-server: the tests of users in Redis are skipped"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks.reader
	$(BIN)/python -m benchmarks.examples --users 20000 100000
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.id_hashing
	$(BIN)/python -m benchmarks.loading
	$(BIN)/python -m benchmarks.requests
	$(BIN)/python -m benchmarks.online
	$(BIN)/python -m benchmarks.embedding_step
	$(BIN)/python -m benchmarks.checkpoint_stall

results: $(STAMP)
	$(BIN)/python -m benchmarks.results $(if $(DATA),--data $(DATA))

peers: .venv-peers/.installed .venv-ranx/.installed .venv-fuxictr/.installed .venv-autofaiss/.installed
.venv-peers/.installed: benchmarks/peers/requirements-rectools.txt
.venv-ranx/.installed: benchmarks/peers/requirements-ranx.txt
.venv-fuxictr/.installed: benchmarks/peers/requirements-fuxictr.txt
.venv-autofaiss/.installed: benchmarks/peers/requirements-autofaiss.txt
.venv-mutants/.installed: tests/mutations/requirements.txt
.venv-peers/.installed .venv-ranx/.installed .venv-fuxictr/.installed .venv-autofaiss/.installed \
.venv-mutants/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@

mutants: $(STAMP) .venv-mutants/.installed
	$(BIN)/python tests/mutations/kill.py $(MODULE) --minutes $(or $(MINUTES),30)

gpu-wheels: $(STAMP)
	$(BIN)/python -m benchmarks.gpu.wheels $@

clean:
	rm -rf .venv .venv-peers .venv-ranx .venv-fuxictr .venv-autofaiss .venv-mutants gpu-wheels build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
