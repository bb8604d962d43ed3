# `make demo` and `make test` work on a fresh machine with Python >= 3.11; everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

WORKERS ?= 2
# One thread each: a test that is about threads sets their number itself, and they wait without spinning.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q --numprocesses $(WORKERS) --dist worksteal

# Quick tests of most parts, chosen by their time.
FAST := $(addprefix tests/, statistical test_affinity.py test_affinity_transforms.py test_bad_input.py \
	test_benchmarks.py test_dense_affinities.py test_evaluation.py test_fake_cuda.py test_initialization.py \
	test_inputs.py test_labels.py test_largevis.py test_learned_map_pitfalls.py test_losses.py test_persistence.py \
	test_plotting.py test_probe.py)

.PHONY: demo test test-all test-fast lint types doctest wheel bench bench-quick bench-scaling bench-distributed bench-kernels bench-parametric bench-placement bench-images bench-check bits gpu-check clean

demo: $(READY)
	$(BIN)/torchdr-cne demo --output demo

# Every property, once.
test: $(READY)
	$(PYTEST) tests

# What a release runs: properties also with further methods, seeds and sizes, and ten thousand damaged files instead of
# two hundred.
test-all: $(READY)
	TORCHDR_CNE_FAULTS=10000 $(PYTEST) -m "" tests

test-fast: $(READY)
	$(PYTEST) $(FAST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

doctest: $(READY)
	$(BIN)/python -m pytest -q --doctest-modules torchdr_cne
	$(BIN)/python -m pytest -q --doctest-glob='*.md' README.md docs

wheel: $(READY)
	$(BIN)/python -m build --wheel --outdir dist .

# Whether the fits give the bits that benchmarks/results/bits.json has of them; on the machine of the record only.
bits: $(READY)
	$(BIN)/python -m benchmarks.bits

# Whether an import, a fit and a kernel take the time of the record, as ratios to peers of one run.
bench-check: $(READY)
	$(BIN)/python -m benchmarks.check

# Whether a GPU computes what it should, and how fast.
gpu-check: $(READY)
	$(BIN)/python -m benchmarks.gpu_check --out gpu-check.jsonl

# Timings mean something on an idle machine only; `pip install -e '.[bench]'` in $(VENV) brings the peers.
RESULTS := benchmarks/results
THREADS ?= 2
MILLION := NegTSNE,UMAP,InfoTSNE,umap-learn pca

bench: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.run --data mnist --rounds 3 --threads $(THREADS) --output $(RESULTS)/mnist.json
	$(BIN)/python -m benchmarks.run --data mnist-raw --methods "ours,umap-learn,PaCMAP" --rounds 3 --threads $(THREADS) --output $(RESULTS)/mnist-raw.json
	$(BIN)/python -m benchmarks.run --data molecules --methods "$(MILLION)" --rounds 3 --threads $(THREADS) --output $(RESULTS)/molecules.json
	$(BIN)/python -m benchmarks.report $(RESULTS)/mnist.json $(RESULTS)/mnist-raw.json $(RESULTS)/molecules.json --figure --readme README.md

bench-quick: $(READY)
	$(BIN)/python -m benchmarks.run --quick --threads $(THREADS)

bench-scaling: $(READY)
	$(BIN)/python -m benchmarks.scaling --threads $(THREADS) --output $(RESULTS)/scaling.json

bench-distributed: $(READY)
	$(BIN)/python -m benchmarks.distributed --data molecules --rounds 3 --output $(RESULTS)/distributed.json

bench-parametric: $(READY)
	$(BIN)/python -m benchmarks.parametric digits --threads $(THREADS) --output $(RESULTS)/parametric.json
	$(BIN)/python -m benchmarks.parametric mnist --methods NegTSNE,UMAP,NCVis,InfoTSNE --threads $(THREADS) --output $(RESULTS)/parametric.json
	$(BIN)/python -m benchmarks.parametric million --threads $(THREADS) --output $(RESULTS)/parametric.json

bench-kernels: $(READY)
	$(BIN)/python -m benchmarks.kernels --output $(RESULTS)/kernels.json

bench-images: $(READY)
	$(BIN)/python -m benchmarks.images digits --epochs 70 --output $(RESULTS)/images.json
	$(BIN)/python -m benchmarks.images cifar --epochs 12 --workers 1 --output $(RESULTS)/images.json
	$(BIN)/python -m benchmarks.images supervised --output $(RESULTS)/images.json

bench-placement: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.placement --methods NegTSNE,UMAP,NCVis,InfoTSNE,umap-learn --output $(RESULTS)/placement.json

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, %s is %d.%d; set PYTHON=python3.11" % (sys.executable, *sys.version_info[:2]) if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
