# `make demo` and `make test` are all that most people need; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(or $(shell command -v python3.11),python3)
CORES ?= $(shell nproc)
VENV ?= .venv
BIN := $(VENV)/bin
LOCKS := envs/ml-cpu.txt envs/workflow.txt envs/light.txt
# PyTorch's own index of CPU wheels: asked only where pip's own configuration (find-links, index) has no such wheel.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export PYTHON TORCH_INDEX TORCH_HASH
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) --rerun-incomplete --show-failed-logs

.PHONY: help
help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/installed: $(LOCKS) envs/install.sh
	@envs/install.sh $(VENV) $(LOCKS)

$(VENV)/installed-dev: $(VENV)/installed envs/dev.txt
	@envs/install.sh $(VENV) envs/dev.txt

# What audits from outside, in an environment of its own (envs/audit.in says why).
AUDIT_VENV ?= .venv-audit
$(AUDIT_VENV)/installed-audit: envs/audit.txt envs/install.sh
	@envs/install.sh $(AUDIT_VENV) envs/audit.txt

.PHONY: venv
venv: $(VENV)/installed ## make .venv from the hashed CPU lock

.PHONY: demo
demo: $(VENV)/installed ## paper A in miniature, from raw preferences to the report
	@$(SNAKEMAKE) --configfile presets/demo.yaml --quiet rules
	@echo; printf '%s\n' "report:  results/demo/report.html" "figures: results/demo/figures/a_figure_2a.png (.pdf, .csv)" \
	"         results/demo/figures/label_noise.png (.pdf, .csv)" "tables:  results/demo/tables/"

.PHONY: demo-paper-a
demo-paper-a: $(VENV)/installed ## every table and figure of paper A in miniature, and the scorecard of its claims
	@$(SNAKEMAKE) --configfile presets/demo.yaml presets/demo-paper-a.yaml --quiet rules
	@echo; printf '%s\n' "report:    results/demo-paper-a/report.html" "scorecard: results/demo-paper-a/scorecard/claims_a.html (.csv, .json)" \
	"figures:   results/demo-paper-a/figures/"

.PHONY: demo-paper-b
demo-paper-b: $(VENV)/installed ## every table and figure of paper B in miniature, its theory simulated, and the scorecard of its claims
	@$(SNAKEMAKE) --configfile presets/demo-paper-b.yaml --quiet rules
	@echo; printf '%s\n' "report:    results/demo-paper-b/report.html" "scorecard: results/demo-paper-b/scorecard/claims_b.html (.csv, .json)" \
	"figures:   results/demo-paper-b/figures/"

.PHONY: hh-small
hh-small: export W2S_HH_DATA := $(abspath $(DATA))
hh-small: export W2S_OPT_TOKENIZER := $(abspath $(or $(TOKENIZER),$(DATA)/../opt-tokenizer))
hh-small: $(VENV)/installed ## the same chain on real HH-RLHF rows: make hh-small DATA=<folder with the HH files>
	@test -d "$(DATA)" || { echo "error: make hh-small DATA=<folder with the HH files>; see docs/results/hh-small.md" >&2; exit 2; }
	@test -d "$$W2S_OPT_TOKENIZER" || { echo "error: no OPT tokenizer at $$W2S_OPT_TOKENIZER; instead: TOKENIZER=<folder>" >&2; exit 2; }
	@$(SNAKEMAKE) --configfile presets/hh-small.yaml --quiet rules
	@echo; printf '%s\n' "report:  results/hh-small/report.html" "figure:  results/hh-small/figures/a_figure_2a.png (.pdf, .csv)" \
	"tables:  results/hh-small/tables/"

.PHONY: real-questions
real-questions: export W2S_QUESTIONS := $(abspath $(QUESTIONS))
real-questions: export W2S_HH_DATA := $(abspath $(or $(DATA),$(QUESTIONS)/hh-rlhf))
real-questions: export W2S_OPT_TOKENIZER := $(abspath $(or $(TOKENIZER),$(QUESTIONS)/opt-tokenizer))
real-questions: $(VENV)/installed ## paper B's chain on real questions: make real-questions QUESTIONS=<folder with gsm8k/ and truthfulqa/>
	@test -d "$(QUESTIONS)/gsm8k" || { echo "error: make real-questions QUESTIONS=<folder with gsm8k/ and truthfulqa/>; see presets/real-questions.yaml" >&2; exit 2; }
	@test -d "$$W2S_HH_DATA" || { echo "error: no HH files at $$W2S_HH_DATA; instead: DATA=<folder>" >&2; exit 2; }
	@test -d "$$W2S_OPT_TOKENIZER" || { echo "error: no OPT tokenizer at $$W2S_OPT_TOKENIZER; instead: TOKENIZER=<folder>" >&2; exit 2; }
	@$(SNAKEMAKE) --configfile presets/real-questions.yaml --quiet rules
	@echo; printf '%s\n' "report:  results/real-questions/report.html" "tables:  results/real-questions/tables/"

CUDA_VENV ?= .venv-cuda
.PHONY: gpu-smoke
gpu-smoke: export W2S_HH_DATA := $(abspath $(DATA))
gpu-smoke: export W2S_OPT_TOKENIZER := $(abspath $(or $(TOKENIZER),$(DATA)/../opt-tokenizer))
gpu-smoke: ## the chain on one GPU in minutes, timed: make gpu-smoke DATA=<folder with the HH files>; installs torch for CUDA
	@test -d "$(DATA)" || { echo "error: make gpu-smoke DATA=<folder with the HH files>; see docs/results/hh-small.md" >&2; exit 2; }
	@test -d "$$W2S_OPT_TOKENIZER" || { echo "error: no OPT tokenizer at $$W2S_OPT_TOKENIZER; instead: TOKENIZER=<folder>" >&2; exit 2; }
	@test -e /proc/driver/nvidia/version || test -e /dev/nvidia0 || \
	{ echo "error: no NVIDIA GPU here; instead, on a CPU: the command in presets/development/gpu-smoke-on-cpu.yaml" >&2; exit 2; }
	@TORCH_INDEX= envs/install.sh $(CUDA_VENV) envs/ml-cuda121.txt envs/workflow.txt envs/light.txt
	@$(CUDA_VENV)/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || \
	{ echo "error: torch in $(CUDA_VENV) cannot use this GPU; is its driver new enough for CUDA 12.1? nvidia-smi tells" >&2; exit 2; }
	@start=$$SECONDS; $(SNAKEMAKE:$(BIN)/%=$(CUDA_VENV)/bin/%) --configfile presets/gpu-smoke.yaml --quiet rules; \
	echo; echo "gpu-smoke took $$((SECONDS - start)) s on $$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)"; \
	echo "report:  results/gpu-smoke/report.html (its table of costs has the time of each stage)"

.PHONY: lint
lint: $(VENV)/installed-dev ## formatters, linters and the type checker
	$(BIN)/snakefmt --line-length 120 --check Snakefile rules
	for preset in $(filter-out presets/demo-paper-a.yaml,$(wildcard presets/*.yaml)) "presets/demo.yaml presets/demo-paper-a.yaml"; do \
	W2S_QUESTIONS=questions W2S_HH_DATA=data W2S_OPT_TOKENIZER=tokenizer $(BIN)/snakemake --lint --configfile $$preset > .lint.log 2>&1 || { cat .lint.log; rm -f .lint.log; exit 1; }; done; rm -f .lint.log
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy scripts

.PHONY: format
format: $(VENV)/installed-dev ## let the formatters write
	$(BIN)/snakefmt --line-length 120 Snakefile rules
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: unit
unit: $(VENV)/installed-dev ## unit tests only
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not prove" tests/unit

.PHONY: test
test: lint ## everything: linters, unit tests, workflow tests, the demo end to end
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m "not prove" tests --ignore tests/cluster --ignore tests/prove

CLUSTER_PACKAGES := slurmctld slurmd slurm-client munge iproute2 patchelf squashfs-tools squashfuse uidmap debootstrap
.PHONY: test-cluster
test-cluster: $(VENV)/installed-dev ## a real SLURM and a real Apptainer, brought up and taken down: make test-cluster [ONLY=<part of a test's name>]
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(CLUSTER_PACKAGES); } > /dev/null 2>&1 \
	|| echo "not all packages could be installed: tests that need them will say so and skip"; fi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -ra --durations=0 tests/cluster -k "$(ONLY)"

.PHONY: prove
prove: export W2S_AUDIT_BIN := $(abspath $(AUDIT_VENV))/bin
prove: $(VENV)/installed-dev $(AUDIT_VENV)/installed-audit ## kills, faults, malformed inputs, reruns, provenance: all proofs, counted in docs/results/prove.json
	$(BIN)/python tests/prove/prove.py $(if $(ONLY),--only "$(ONLY)")

.PHONY: audit
audit: $(VENV)/installed $(AUDIT_VENV)/installed-audit ## ask OSV whether a vulnerability of a locked package is known
	$(BIN)/python scripts/audit.py --pip-audit $(AUDIT_VENV)/bin/pip-audit

# What was measured for benchmarks/results; the full sizes are the programs' own defaults.
BENCHMARKS := "scoring.py --pairs 24 --batch-tokens 512" "scoring.py --pairs 24 --batch-tokens 512 --precision bfloat16" \
  dpo.py sft.py "gold.py --texts 24 --batch-tokens 512" "generation.py --prompts 32 --new-tokens 24"
BENCH_ROWS := $(if $(DATA),--rows $(abspath $(DATA)) --tokenizer $(abspath $(or $(TOKENIZER),$(DATA)/../opt-tokenizer)))
.PHONY: bench
bench: $(VENV)/installed ## ours beside the libraries', then the table; the better part of an hour on two cores: make bench [DATA=<folder with the HH files>]
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name $(BENCH_ROWS) || exit 1; done
	$(BIN)/python benchmarks/growth.py --pairs 100
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/gpu.py $(BENCH_ROWS)
	@echo "(the demo beside itself at another commit: benchmarks/demo.py)"; $(BIN)/python benchmarks/table.py

.PHONY: docs
docs: $(VENV)/installed-dev ## write docs/stages and docs/configuration.md anew
	$(BIN)/python scripts/make_docs.py

.PHONY: images
images: ## build both container images: make images [BASE=auto|vendor|distribution]; docs/containers.md
	@containers/build.sh

.PHONY: lock
lock: $(VENV)/installed ## resolve envs/*.in anew (needs uv), and the images' bills of materials with them
	bash envs/lock.sh
	@$(MAKE) $(AUDIT_VENV)/installed-audit
	$(BIN)/python containers/sbom.py write

.PHONY: clean
clean: ## remove results, resources and the environment
	rm -rf results resources .snakemake $(VENV)
