# Two commands on a fresh machine: `make demo` (with NOTEBOOK=03 another one) and `make test`. `make install` is the set-up alone.
# `make test-all` runs once before a release: every test, those marked `long` too, such as many kills at random instants.
# `make test-colab` tries the versions that Colab brings (PYTHON= names a Python 3.13 where none is found), `make test-floors` the
# lowest that pyproject.toml allows and those of GPU servers; each builds its environments beside .venv, several gigabytes each.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed
STATE ?= $(CURDIR)/out/state
NOTEBOOK ?= 01

CODE := colabkit tests benchmarks install.py notebooks/stamp.py
COLAB := .venv-colab
BUILDS := tests/install/environments.py tests/install/colab-freeze.txt pyproject.toml
FLOORS := lowest-3.11 lowest-3.12 lowest-3.13 gpu-host
# Tests that share a set-up run in one process (tests/conftest.py), in their order: what takes longest comes first.
WORKERS ?= 2
PYTEST := -m pytest --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder
# Of the rooms below, what is our own logic on the standard library: it is the same with any version of others' libraries.
OURS_ALONE := $(addprefix tests/,io/places/test_cache.py io/places/test_folder.py io/places/test_s3_profile.py \
  io/places/http/test_signing.py io/transfer/test_local_files.py io/transfer/test_workers.py \
  pipelines/asr/evaluate/test_arpa.py pipelines/asr/evaluate/test_language_model.py \
  pipelines/dataset/cut/test_subtitles.py pipelines/dataset/encode/test_batcher.py \
  pipelines/dataset/encode/test_claims.py pipelines/dataset/encode/test_credits.py pipelines/dataset/encode/test_crew.py \
  pipelines/dataset/encode/test_journal.py pipelines/dataset/encode/test_kills.py pipelines/dataset/encode/test_quota.py \
  pipelines/dataset/encode/test_spool.py pipelines/dataset/pairs/test_spoken_text.py pipelines/dataset/segments/test_segment.py \
  pipelines/dataset/segments/test_zip_members.py pipelines/diarization/test_rttm.py training/sizing/test_allocator.py \
  training/sizing/test_memory_model.py)
# What other people's versions can break, without what kills processes and times them: that is the same with any version.
KILLS := killed_at or killed_before or killed_anywhere or kill_9
OF_VERSIONS := -m "not slow and not long" -k "not ($(KILLS))" $(OURS_ALONE:%=--ignore=%) \
  tests/core/versions tests/training/sizing tests/training/test_tracking.py tests/colab tests/io tests/loopback tests/pipelines

.PHONY: install demo test test-all test-colab test-floors $(FLOORS) renew-colab lint stamp clean

install: $(STAMP)

$(STAMP): install.py pyproject.toml constraints.txt
	$(PYTHON) install.py $(VENV)
	touch $(STAMP)

demo: install
	$(VENV)/bin/colabkit notebook $(NOTEBOOK) -p PRESET=demo -p STATE=$(STATE)
	$(VENV)/bin/colabkit status $(NOTEBOOK) --state $(STATE)

test: lint
	$(VENV)/bin/python $(PYTEST) -m "not long"

test-all: lint
	$(VENV)/bin/python $(PYTEST)

$(COLAB)/built.json: $(BUILDS) | install
	$(VENV)/bin/python -m tests.install.environments colab $(COLAB) $(if $(filter command line,$(origin PYTHON)),--python $(PYTHON))

test-colab: install $(COLAB)/built.json
	COLABKIT_COLAB=$(COLAB) $(VENV)/bin/python $(PYTEST) tests/install/colab
	$(COLAB)/suite/bin/python $(PYTEST) tests/contracts/test_notebooks.py
	$(COLAB)/suite/bin/python $(PYTEST) $(OF_VERSIONS)

test-floors: $(FLOORS)

$(filter lowest-%,$(FLOORS)): lowest-%: install
	$(VENV)/bin/python -m tests.install.environments lowest .venv-$@ --python $*
	.venv-$@/bin/python $(PYTEST) $(OF_VERSIONS)

gpu-host: install
	$(VENV)/bin/python -m tests.install.environments gpu-host .venv-$@
	.venv-$@/bin/python $(PYTEST) $(OF_VERSIONS)

# Takes the newest published list of what Colab brings; then make test-colab tries it.
renew-colab: install
	$(VENV)/bin/python -m tests.install.colab_freeze

lint: install
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check --quiet $(CODE)
	$(VENV)/bin/python -m tests.house.anatomy

# Writes the address of pyproject.toml ([project.urls] Repository, [tool.colabkit] revision) into badges and install cells.
stamp:
	$(PYTHON) notebooks/stamp.py

clean:
	rm -rf $(VENV) $(COLAB) $(FLOORS:%=.venv-%) out
