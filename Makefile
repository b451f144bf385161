# make setup   .venv with everything          make demo    the main job on sample data
# make test    set up, run the tests          make check   formatting, lints, types
# make docs   the documentation site, into build/docs
# make test-all   the tests, then their long forms: whole demo, wheel in an environment of its own, torchrun
# make test-bounds   the kernels' tests on a build with bounds checks
# make test-sanitized   the kernels' tests on a build with AddressSanitizer (GCC)
# make test-lowest   the tests of runtime and evaluation with the lowest versions that pyproject.toml allows
# make demo-video   from films to segments: fetches open films and a network (80 MB), trains, detects, plays what was found
# make fuzz    10,000 damaged or hostile files, each read in a process of its own (minutes)
# make wheel   sdist and wheel into dist/, and what twine and auditwheel say of them (on Linux)
# make bench   ratios against named peers     make help    this list
# make gpu     what an NVIDIA GPU gives, as a report: is it used, are its results the CPU's, how fast (minutes)
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The GPU build of ONNX Runtime exists for Linux on x86-64 (it runs on a CPU too); elsewhere the CPU build.
ENGINE := $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' '-')),gpu,cpu)
SOURCES := $(wildcard _ext/*.pyx _ext/*.pxi setup.py)
TREES := _ext benchmarks docs evaluation examples export refineloc runtime tests training setup.py

.PHONY: help setup demo demo-video docs test test-all test-bounds test-sanitized test-lowest check typing fuzz wheel bench gpu clean
.DELETE_ON_ERROR:

help:
	@grep -E '^# make' Makefile | cut -c3-

setup: $(VENV)/.kernels

# The packages: made again when what is asked for changes.
$(VENV)/.packages: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade -c constraints.txt pip setuptools wheel cython numpy
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --group dev
	@# setuptools warns that an editable install of mapped folders may shadow names; ours are imported as refineloc.*
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[train,$(ENGINE)]'
	touch $@

# The kernels: compiled again when one changes.
$(VENV)/.kernels: $(VENV)/.packages $(SOURCES)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

demo-video: setup
	$(BIN)/python examples/demo_video.py

test: setup
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not long"

test-all: test
	$(BIN)/python -m pytest -n auto --dist loadfile -m long

# Built and run with the lowest versions that pyproject.toml allows, in a copy, beside the usual environment. Without the
# packages of training: torch alone is several GB. matplotlib 3.9 makes pyparsing 3.3 warn of each name that it renamed.
LOWEST := $(CURDIR)/build/lowest
test-lowest:
	rm -rf $(LOWEST) && mkdir -p $(LOWEST)/tree && git ls-files -z | xargs -0 cp --parents -t $(LOWEST)/tree
	$(PYTHON) -m venv $(LOWEST)/venv && $(LOWEST)/venv/bin/python -m pip install -q --disable-pip-version-check --upgrade pip
	$(PYTHON) .ci/lowest.py > $(LOWEST)/constraints.txt
	cd $(LOWEST)/tree && ../venv/bin/python -m pip install -q -c ../constraints.txt setuptools wheel cython numpy onnx \
		pytest pytest-xdist hypothesis hdf5plugin "pyparsing<3.3"
	cd $(LOWEST)/tree && PYTHONWARNINGS=ignore ../venv/bin/python -m pip install -q -c ../constraints.txt \
		--no-build-isolation -e '.[cpu,plot,formats,video,hub]'
	cd $(LOWEST)/tree && ../venv/bin/python -m pytest -n auto --dist loadfile -m "not long" tests/ext tests/runtime tests/evaluation

KERNEL_TESTS := tests/ext tests/evaluation/test_average_precision.py

# The kernels' tests on a build with bounds checks, beside the usual one (docs/explanation/memory-safety.md).
CHECKED := $(CURDIR)/build/checked/lib
test-bounds: setup
	rm -rf build/checked build/cython-checked
	REFINELOC_BOUNDSCHECK=1 $(BIN)/python -W ignore setup.py -q build --build-base build/checked --build-lib $(CHECKED)
	@# Loops without the GIL cannot raise: what they find arrives as an "unraisable" error, which fails the test here.
	REFINELOC_EXT_DIR=$(CHECKED)/refineloc/_ext $(BIN)/python -m pytest $(KERNEL_TESTS) \
		-W error::pytest.PytestUnraisableExceptionWarning

# The same with AddressSanitizer, which has to be loaded before Python. PYTHONMALLOC=malloc: Python's own pools would hide
# errors. Leaks are left out, as Python itself leaves memory at its end. -s lets a report through.
SANITIZED := $(CURDIR)/build/sanitized/lib
test-sanitized: setup
	rm -rf build/sanitized
	REFINELOC_SANITIZE=1 $(BIN)/python -W ignore setup.py -q build --build-base build/sanitized --build-lib $(SANITIZED)
	REFINELOC_EXT_DIR=$(SANITIZED)/refineloc/_ext PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
		$(BIN)/python -m pytest $(KERNEL_TESTS) -p no:cacheprovider -s

check: setup typing
	$(BIN)/ruff format --check $(TREES)
	$(BIN)/ruff check $(TREES)
	cd .typing && MYPYPATH=. ../$(BIN)/mypy --config-file ../pyproject.toml -p refineloc

# mypy finds packages by folder, and ours have other names on disk: a folder of links shows it the import names.
typing:
	@mkdir -p .typing/refineloc
	@for folder in _ext runtime evaluation training export; do ln -sfn ../../$$folder .typing/refineloc/$$folder; done
	@for file in __init__.py py.typed; do ln -sf ../../refineloc/$$file .typing/refineloc/$$file; done

# A warning is an error: a link to nothing, a page in no table of contents, a name of ours that the API does not have.
docs: setup
	$(BIN)/python -m sphinx -q -W --keep-going -j auto -d build/docs-cache docs build/docs
	@echo "build/docs/index.html"

fuzz: setup
	REFINELOC_FUZZ=10000 $(BIN)/python -m pytest tests/runtime/fuzz/test_fuzz.py -rP --show-capture=stdout

wheel: setup
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	@# The verdict on Linux: no library beside the system's, and no newer glibc than ONNX Runtime's wheels need (2.28).
	$(BIN)/python -m auditwheel show dist/*.whl | tee build/auditwheel.txt
	grep -qE '"manylinux_2_(17|2[0-8])_' build/auditwheel.txt
	ls -l dist

bench: setup
	$(BIN)/python -m benchmarks

# The libraries of CUDA and cuDNN that ONNX Runtime loads, beside those of torch.
gpu: setup
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt 'onnxruntime-gpu[cuda,cudnn]'
	$(BIN)/python -m benchmarks.gpu

clean:
	rm -rf build dist demo demo-video .typing .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o \( -name '__pycache__' -o -name '*.so' \) -print0 | xargs -0 rm -rf
