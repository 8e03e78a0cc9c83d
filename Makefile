# The developer manual: every target is what a person would type. VENV=PATH uses another environment.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.pins-$(shell sha256sum requirements.txt pyproject.toml 2>/dev/null | sha256sum | cut -c1-16)
DEMO ?= demo
TASK ?= semantic
IMAGES_semantic = --train 2000 --val 50 --test 100
IMAGES_instance = --train 128
IMAGES_panoptic = --train 128
DEMO_semantic = unet_shapes_minute
DEMO_instance = mask_rcnn_shapes train.epochs=5 train.val_epochs=5
DEMO_panoptic = panoptic_fpn_shapes train.epochs=5 train.val_epochs=5
SAVE_semantic = mask,overlay
SAVE_instance = instances,overlay
SAVE_panoptic = panoptic,overlay
SHARED := $(or $(SEGATLAS_SHARED),../shared)
PEERS ?= .peers/bin/python
REFERENCES ?= $(wildcard ../parity_refs)
PANOPTICAPI ?=
JOBS ?= 2
TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
TABLE = OMP_WAIT_POLICY=PASSIVE SEGATLAS_SHARED=$(SHARED) PYTHONPATH=src$(if $(PANOPTICAPI),:$(PANOPTICAPI)) $(PEERS) -m benchmarks

.PHONY: demo test test-all check docs bench shape-proof env clean pins

env: $(STAMP)  ## the pinned environment and this package

$(STAMP):
	@echo "building $(VENV) from requirements.txt (about 6 GB on disk, a minute or two)"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv -q --allow-existing -p $(PYTHON) $(VENV) && \
		uv pip install -q -p $(BIN)/python --require-hashes -r requirements.txt && \
		uv pip install -q -p $(BIN)/python --no-deps -e . ; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.txt && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e . ; \
	fi
	@rm -f $(VENV)/.pins-* && touch $@

demo: env  ## train, evaluate, predict and report on generated shapes, 90 seconds; TASK=instance or panoptic: others
	@$(if $(DEMO_$(TASK)),,$(error TASK=$(TASK): expected semantic, instance or panoptic))true
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	$(BIN)/segatlas data make-shapes $(DEMO)/shapes $(IMAGES_$(TASK))
	$(BIN)/segatlas train $(DEMO_$(TASK)) data.root=$(DEMO)/shapes run.dir=$(DEMO)/run
	$(BIN)/segatlas eval $(DEMO)/run --split test --out $(DEMO)/test -q
	$(BIN)/segatlas predict $(DEMO)/run '$(DEMO)/shapes/test/images/000*.png' --out $(DEMO)/predictions --save $(SAVE_$(TASK))
	@echo
	@echo "report:  $(DEMO)/run/report.html"
	@echo "image:   $$(ls $(DEMO)/run/samples/*.png | tail -1)"

test: env  ## the test suite without slow tests, under 10 minutes on 2 cores
	$(TESTS) -m "not slow"

test-all: env  ## everything
	$(TESTS)

check: env  ## lint, format, types, import directions, house rules
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports
	$(BIN)/python tools/house_rules.py

shape-proof: env  ## no number changed: goldens, parity keys (REFERENCES=FOLDER), dry runs, folders of earlier months
	$(BIN)/python tools/shape_proof.py $(if $(REFERENCES),--references "$(REFERENCES)")

docs: env  ## the documentation site in site/
	$(BIN)/python tools/generate_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: env  ## shipped networks on this machine, then the table against the peers: docs/performance.md (ONLY=, ROUNDS=, ADD=1, PEERS=; PANOPTICAPI=FOLDER: a checkout of cocodataset/panopticapi, which no index has)
	@if [ ! -x "$(PEERS)" ] || { [ "$(PEERS)" = .peers/bin/python ] && [ ! -f .peers/READY ]; }; then \
		if [ "$(PEERS)" = .peers/bin/python ] && [ -f "$(SHARED)/parity/ref_env.sh" ]; then \
			echo "building .peers, the environment of the peers (about 6 GB on disk, minutes)" && \
			PYTHON=$(PYTHON) "$(SHARED)/parity/ref_env.sh" .peers && touch .peers/READY ; \
		else \
			echo "make bench: no peers at $(PEERS), and no $(SHARED)/parity/ref_env.sh to build them with." ; \
			echo "Give PEERS=PATH, the python of an environment that holds them, or SEGATLAS_SHARED=FOLDER." ; \
			exit 1 ; \
		fi ; \
	fi
	@if [ "$(PEERS)" = .peers/bin/python ] && ! $(PEERS) -c "import hotcoco, pyarrow, vernier" 2>/dev/null; then \
		$(PEERS) -m pip install -q --no-deps hotcoco==1.3.0 vernier==0.5.4 pyarrow ; \
	fi
ifeq ($(ONLY)$(ROUNDS),)
	$(BIN)/segatlas bench unet segformer_b0 --size 512x512
	$(TABLE) --out docs/performance.json
	$(BIN)/python benchmarks/page.py
else
	$(TABLE) --only "$(ONLY)" $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ADD),--add --out docs/performance.json,--out bench.json)
	$(if $(ADD),$(BIN)/python benchmarks/page.py)
endif

pins:  ## make requirements.txt anew (needs uv)
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra dev --extra docs pyproject.toml -o requirements.txt

clean:
	rm -rf $(DEMO) site build dist .pytest_cache .ruff_cache .mypy_cache
