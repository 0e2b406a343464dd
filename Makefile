# make run    the demo: environment, workflow, where the results are
# make report the pictures and tables of the last run, with captions, in one file
# make test   all tests
# make test-slurm   on a Slurm cluster that is started on this machine, where its packages are
PYTHON ?= python3
VENV ?= .venv
CORES ?= 2
BIN = $(VENV)/bin

PEERS = $(VENV)-peers

.PHONY: run report test test-slurm check docs bench bench-harmony bench-harmony1 bench-pca \
    bench-clustering bench-job bench-growth bench-mnn bench-topics bench-plan bench-memory bench-gpu \
    bench-splits bench-split-time bench-resolutions bench-threads bench-markers clean

run: $(VENV)/installed
	$(BIN)/snakemake --cores $(CORES) --quiet progress rules host reason

# REPORT=results/report.html makes one page, which holds less; both work offline.
REPORT ?= results/report.zip
report: $(VENV)/installed
	$(BIN)/snakemake --report $(REPORT) --quiet progress rules host reason

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile

test-slurm: $(VENV)/installed-test $(VENV)/installed-slurm
	$(BIN)/python -m pytest test/slurm

check: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# Side by side with the peers; each writes its section of test/bench/RESULTS.md.
bench: bench-pca bench-harmony bench-harmony1 bench-clustering bench-job bench-growth bench-mnn bench-topics \
    bench-markers

bench-harmony bench-pca bench-clustering bench-job bench-mnn bench-topics bench-markers: bench-%: \
    $(VENV)/installed $(PEERS)/installed
	$(BIN)/python test/bench/bench_$*.py --peers-python $(PEERS)/bin/python

# The workflow alone, up to a million cells
bench-growth: $(VENV)/installed
	$(BIN)/python test/bench/bench_job.py --grow 50000 200000 1000000

bench-harmony1: $(VENV)/installed $(PEERS)-harmony1/installed
	$(BIN)/python test/bench/bench_harmony1.py --peers-python $(PEERS)-harmony1/bin/python

bench-plan: $(VENV)/installed
	$(BIN)/python test/bench/bench_plan.py

# Simulated and real populations: how often noise is split, how much is found
bench-splits: $(VENV)/installed-test
	$(BIN)/python test/bench/bench_splits.py --figure docs/significance_calibration.png

# What the test of splits adds to the time of clustering
bench-split-time: $(VENV)/installed
	$(BIN)/python test/bench/bench_split_time.py

# Suggested resolutions beside the best, and none in homogeneous populations
bench-resolutions: $(VENV)/installed
	$(BIN)/python test/bench/bench_resolutions.py

# Seconds, CPU and memory by threads; a machine with more cores: THREADS="1 2 8 32"
THREADS ?= 1 2
bench-threads: $(VENV)/installed
	$(BIN)/python test/bench/bench_threads.py --threads $(THREADS)

# Fails where a job takes more memory than it asks for
bench-memory: $(VENV)/installed-scvi
	$(BIN)/python test/bench/bench_memory.py --cells 0 50000 200000

# Not part of bench: needs a GPU. VENV=.venv-gpu is where installed-gpu puts it (README).
bench-gpu: $(VENV)/installed
	$(BIN)/python test/bench/bench_gpu.py

# config/schema.json and the tables of config/README.md, from the options of the stages
docs: $(VENV)/installed
	PYTHONPATH=workflow $(BIN)/python -m plan.docs

clean:
	rm -rf $(VENV) $(VENV)-peers* $(VENV)-anndata010 results .snakemake

$(VENV)/installed: envs/snakemake.txt envs/scanpy.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 11) else \
	"cellstrata needs Python 3.11 or newer, $(PYTHON) is %d.%d; try: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --compile \
	    $(addprefix -r ,$^)
	@touch $@

$(VENV)-%/installed: envs/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --compile -r $<
	@touch $@

# What only some methods need; for a CPU build of PyTorch install that first (README).
$(VENV)/installed-scvi: envs/vae.txt
$(VENV)/installed-vae $(VENV)/installed-scvi $(VENV)/installed-slurm: $(VENV)/installed-%: \
    envs/%.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --compile -r $<
	@touch $@

# What a GPU needs. Not among the tests' packages: it takes other pins, and gigabytes.
$(VENV)/installed-gpu: envs/rapids_singlecell.txt $(VENV)/installed
	@$(BIN)/python -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 12) else \
	"rapids-singlecell needs Python 3.12 or newer for its Harmony 2, this is %d.%d; "\
	"try: make VENV=.venv-gpu PYTHON=python3.12 .venv-gpu/installed-gpu" % v)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --compile -r $<
	@touch $@

$(VENV)/installed-test: envs/test.txt $(VENV)/installed $(VENV)/installed-scvi $(VENV)-anndata010/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --compile -r $<
	@touch $@
