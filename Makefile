# Every target sets up what it needs, once: a virtual environment in .venv with the versions of constraints.txt.
# Without make (Windows): book/running.md has the same commands.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
NBVAL  := --nbval --nbval-current-env --nbval-cell-timeout=300 --nbval-sanitize-with tests/nbval_sanitize.cfg

.PHONY: book test test-slow test-all notebooks experiments html pdf zip serve full zoo zoo-sources benchmarks lint clean

book: $(READY)  ## run every chapter on this machine and render the book into _build/html
	$(BIN)/tlutils run --jobs 2 --out _build/notebooks
	$(BIN)/python scripts/build_book.py --notebooks _build/notebooks

test: $(READY) lint  ## everything that must hold before a change lands
	$(BIN)/python -m pytest -m "not slow" tests
	TLUTILS_PROGRESS=0 $(BIN)/python -m pytest $(NBVAL) notebooks

test-slow: $(READY)  ## what takes long: every ImageNet family, real weights in full, other releases of Keras
	$(BIN)/python -m pytest -m slow tests

test-all: test test-slow

notebooks: $(READY)  ## regenerate notebooks/*.ipynb from their text, with fresh outputs
	$(BIN)/python scripts/notebooks.py sync
	$(BIN)/tlutils run --write

experiments: $(READY)  ## measure the many-seed tables again (book/results)
	for script in experiments/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

html: $(READY)  ## render the committed outputs
	$(BIN)/python scripts/build_book.py

pdf: html  ## the whole book as one PDF, _build/transfer-learning.pdf; needs Chromium
	$(BIN)/python scripts/print_book.py pdf

zip: html  ## the rendered book to read without a network, _build/transfer-learning.zip
	$(BIN)/python scripts/print_book.py zip

student: $(READY)  ## the chapters for a course: exercises with their checks and no solution, in _build/student
	$(BIN)/python scripts/courses.py student

instructor: $(READY)  ## the same with solutions, marking scheme and nbgrader's metadata, in _build/instructor
	$(BIN)/python scripts/courses.py instructor

serve: $(READY)  ## look at the book at http://localhost:8000
	$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

full: $(READY)  ## every chapter on ImageNet models and photographs; needs a GPU
	$(BIN)/tlutils run --profile full --gpu require --out _build/full

zoo: $(READY)  ## pretrain the pocket zoo again; goes on where it was interrupted
	$(BIN)/python -m tlutils.zoo

zoo-sources: $(READY)  ## pretrain the zoo again on the other source tasks of chapter 03; goes on where it was interrupted
	$(BIN)/python -m tlutils.zoo --source strokes textures --jobs 2

benchmarks: $(READY)  ## timings and memory in one table, as ratios measured side by side
	$(BIN)/python benchmarks/run.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove what was built; the environment in .venv stays
	rm -rf _build

$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, and {sys.executable} is {v[0]}.{v[1]}: say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@
