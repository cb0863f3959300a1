# The commands of the course. `make help` lists them.
#
# Each target sets up what it needs in .venv and does nothing twice. On a machine without make,
# README.md gives the same steps as plain commands.

.DEFAULT_GOAL := help
.SUFFIXES:

# Choose another interpreter with `make book PYTHON=/path/to/python3.12`.
PYTHON ?=
# Notebooks to work on, for refresh, edit and store: NB=book/chain_rule.ipynb (default: all).
NB ?=
# What pytest is told besides: make test PYTEST_ARGS="-k parity -x".
PYTEST_ARGS ?=
# Whole notebooks are shared out to this many processes.
WORKERS ?= 2
# For versions and test-versions: which set, and the Python it is made with (default: by version).
SET ?= lowest
PYTHON_UNDER_TEST ?=
# Pages to print, for pdf (default: all).
PAGES ?=
PORT ?= 8000

# Two workers on two cores: more threads in each would only wait for one another. The stored
# outputs do not depend on it: make test OMP_NUM_THREADS=2 must pass as well.
OMP_NUM_THREADS ?= 1
TF_NUM_INTRAOP_THREADS ?= $(OMP_NUM_THREADS)
TF_NUM_INTEROP_THREADS ?= 1
export PYTHON PYTHON_UNDER_TEST OMP_NUM_THREADS TF_NUM_INTRAOP_THREADS TF_NUM_INTEROP_THREADS

VENV_PYTHON := .venv/bin/python

.PHONY: help book test test-notebooks test-versions versions lint refresh edit store exercises notebooks pdf wheel publication links serve lock clean env-book env-pdf env-test

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile \
	  | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

book: env-book  ## build the book into _build/html
	@$(VENV_PYTHON) book/_tools/build_book.py

test: env-test  ## check everything: lint, library, notebooks, book
	@$(VENV_PYTHON) book/_tools/build_book.py
	@echo "==> Testing (each notebook is run again, each page is checked)"
	@$(VENV_PYTHON) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-notebooks: env-test  ## check the notebooks alone, or one: NB=book/x.ipynb
	@$(VENV_PYTHON) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS) \
	  tests/notebooks $(if $(NB),"$(NB)",book exercises solutions)

lint: env-test  ## check the code with ruff
	@$(VENV_PYTHON) -m ruff check .

refresh: env-test  ## run notebooks and store their outputs: all, or NB=book/x.ipynb
	@$(VENV_PYTHON) book/_tools/refresh.py $(if $(NB),"$(NB)")

edit: env-test  ## NB=book/x.ipynb as a Python file, to edit in _build/edit
	@$(VENV_PYTHON) book/_tools/edit.py edit "$(NB)"

store: env-test  ## put the edited file back into NB=book/x.ipynb, run and store it
	@$(VENV_PYTHON) book/_tools/edit.py store "$(NB)"
	@$(VENV_PYTHON) book/_tools/refresh.py "$(NB)"

exercises: env-test  ## make the student notebooks in exercises/ from solutions/
	@$(VENV_PYTHON) book/_tools/exercises.py

notebooks: env-book  ## write the notebooks that Colab opens, into _build/notebooks
	@$(VENV_PYTHON) book/_tools/colab.py

pdf: env-pdf  ## print the book as one PDF, into _build/pdf (or some pages: PAGES=book/intro)
	@$(VENV_PYTHON) book/_tools/build_book.py
	@$(VENV_PYTHON) book/_tools/pdf.py $(if $(PAGES),--pages $(PAGES))

wheel: env-book  ## build the package, and try it in an environment without the course
	@$(VENV_PYTHON) book/_tools/wheel.py build
	@$(VENV_PYTHON) book/_tools/wheel.py try

publication: pdf notebooks  ## gather what is published (make wheel first), and check its links
	@$(VENV_PYTHON) book/_tools/publish.py gather

links: book notebooks  ## check every link, those that lead outside too
	@$(VENV_PYTHON) book/_tools/links.py
	@$(VENV_PYTHON) book/_tools/outside_links.py

serve: book  ## build the book and show it at http://localhost:8000
	@echo "==> http://localhost:$(PORT) (stop with Ctrl-C)"
	@$(VENV_PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

versions: env-test  ## run notebooks on other versions: SET=colab, lowest or newest (NB=...)
	@$(VENV_PYTHON) book/_tools/compare_versions.py --set "$(SET)" $(if $(NB),"$(NB)")

test-versions: env-test  ## check the library on other versions: SET=colab, lowest or newest
	@$(VENV_PYTHON) book/_tools/version_sets.py "$(SET)" --into "_build/versions/$(SET)/env"
	@"_build/versions/$(SET)/env/bin/python" -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS) tests/unit

lock: env-test  ## write requirements.lock anew from pyproject.toml
	@$(VENV_PYTHON) -m pip install --quiet "uv>=0.5"
	@$(VENV_PYTHON) book/_tools/lock.py

clean:  ## remove what was built; .venv too with ALL=1
	rm -rf _build build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find book course_lib tests exercises solutions -name __pycache__ -type d -prune -exec rm -rf {} +
	$(if $(ALL),rm -rf .venv)

env-book:
	@sh book/_tools/environment.sh book

env-pdf:
	@sh book/_tools/environment.sh pdf

env-test:
	@sh book/_tools/environment.sh test
