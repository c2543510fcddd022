# Two commands on a fresh machine: `make demo` (with NOTEBOOK=03 another one) and `make test`. `make install` is the set-up alone.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed
STATE ?= $(CURDIR)/out/state
NOTEBOOK ?= 01

.PHONY: install demo test lint stamp clean

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

lint: install
	$(VENV)/bin/ruff check colabkit tests benchmarks install.py notebooks/stamp.py
	$(VENV)/bin/python -m tests.house.anatomy

# Writes the address of pyproject.toml ([project.urls] Repository, [tool.colabkit] revision) into badges and install cells.
stamp:
	$(PYTHON) notebooks/stamp.py

clean:
	rm -rf $(VENV) out
