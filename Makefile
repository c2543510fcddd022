# Two commands on a fresh machine: `make demo` (with NOTEBOOK=03 another one) and `make test`. `make install` is the set-up alone.
# `make test-colab` tries the versions that Colab brings (PYTHON= names a Python 3.13 where none is found), `make test-floors` the
# lowest that pyproject.toml allows and those of GPU servers; each builds its environments beside .venv, several gigabytes each.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed
STATE ?= $(CURDIR)/out/state
NOTEBOOK ?= 01

COLAB := .venv-colab
BUILDS := tests/install/environments.py tests/install/colab-freeze.txt pyproject.toml
FLOORS := lowest-3.11 lowest-3.12 lowest-3.13 gpu-host
PYTEST := -m pytest --numprocesses 2 --no-loadscope-reorder
# What other people's versions can break, without what kills processes and times them: that is the same with any version.
OF_VERSIONS := -m "not slow" --dist loadfile tests/core/versions tests/training/sizing tests/training/test_tracking.py \
  tests/colab tests/io tests/loopback tests/pipelines

.PHONY: install demo test test-colab test-floors $(FLOORS) renew-colab lint stamp clean

install: $(STAMP)

$(STAMP): install.py pyproject.toml constraints.txt
	$(PYTHON) install.py $(VENV)
	touch $(STAMP)

demo: install
	$(VENV)/bin/colabkit notebook $(NOTEBOOK) -p PRESET=demo -p STATE=$(STATE)
	$(VENV)/bin/colabkit status $(NOTEBOOK) --state $(STATE)

test: install
	$(VENV)/bin/ruff check colabkit tests benchmarks install.py notebooks/stamp.py
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

$(COLAB)/built.json: $(BUILDS) | install
	$(VENV)/bin/python -m tests.install.environments colab $(COLAB) $(if $(filter command line,$(origin PYTHON)),--python $(PYTHON))

test-colab: install $(COLAB)/built.json
	COLABKIT_COLAB=$(COLAB) $(VENV)/bin/python $(PYTEST) --dist loadgroup tests/install/colab
	$(COLAB)/suite/bin/python $(PYTEST) --dist loadgroup tests/contracts/test_notebooks.py
	$(COLAB)/suite/bin/python $(PYTEST) $(OF_VERSIONS)

test-floors: $(FLOORS)

lowest-%: install
	$(VENV)/bin/python -m tests.install.environments lowest .venv-$@ --python $*
	.venv-$@/bin/python $(PYTEST) $(OF_VERSIONS)

gpu-host: install
	$(VENV)/bin/python -m tests.install.environments gpu-host .venv-$@
	.venv-$@/bin/python $(PYTEST) $(OF_VERSIONS)

# Takes the newest published list of what Colab brings; then make test-colab tries it.
renew-colab: install
	$(VENV)/bin/python -m tests.install.colab_freeze

lint: install
	$(VENV)/bin/ruff check colabkit tests benchmarks install.py notebooks/stamp.py
	$(VENV)/bin/python -m tests.house.anatomy

# Writes the address of pyproject.toml ([project.urls] Repository, [tool.colabkit] revision) into badges and install cells.
stamp:
	$(PYTHON) notebooks/stamp.py

clean:
	rm -rf $(VENV) $(COLAB) $(FLOORS:%=.venv-%) out
