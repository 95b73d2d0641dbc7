# What all rules share: the validated configuration, the plan drawn from it, and how a stage is started.

import shlex
import sys
from pathlib import Path

from snakemake import __version__ as snakemake_version
from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.persistence.file import FilePersistence
from snakemake.shell import shell as shell_command

BASE = Path(workflow.basedir)
sys.path.insert(0, str(BASE / "scripts"))

from w2s import sources
from w2s.allocation import import_mb, site, stage_minutes, stage_need
from w2s.config import load_config
from w2s.cutoff import cut_off_early
from w2s.deployment import enter_containers, shell_prefix, store_folder
from w2s.errors import W2SError
from w2s.fingerprint import fingerprint
from w2s.images import check_image, read_images
from w2s.isolation import check as check_isolation
from w2s.plan import Plan
from w2s.slurm import leave_marks_to_the_controller, refuse_beside_orphans
from w2s.words import alternatives, cell_path, flags, has_gpu

# The files in the order of the merge: Snakemake lists those of the command line, which win, first.
OVERLAYS = list(workflow.overwrite_configfiles)
CONFIG_FILES = [file for file in workflow.configfiles if file not in OVERLAYS] + OVERLAYS

try:
    CONFIG = load_config(config, CONFIG_FILES)
    PLAN = Plan(CONFIG)
    IMAGES = read_images(BASE)
except W2SError as error:
    raise WorkflowError(f"configuration refused, nothing was started\n{error}") from None

RUNTIME = CONFIG.runtime
STORE = store_folder(RUNTIME.store)
ROOT = PLAN.root
CELL = "{data}/{share}/seed-{seed}"
# The labels that a student of paper B learns from.
STUDENT = "{task}/seed-{seed}/weak-{weak}/refiner-{refiner}/{refinement}"
# Resources where no model runs: one core, minutes.
LIGHT = site(CONFIG, 0) | {"mem_mb": 4000, "runtime": 30}


wildcard_constraints:
    data=alternatives(CONFIG.data),
    model=alternatives(CONFIG.models),
    teacher=alternatives(CONFIG.models),
    student=alternatives(CONFIG.models),
    recipe=alternatives(CONFIG.recipes),
    feedback=alternatives(CONFIG.feedback),
    gold=alternatives(CONFIG.golds),
    evaluation=alternatives(CONFIG.evaluations),
    experiment=alternatives(CONFIG.experiments),
    share=r"\d+-of-\d+",
    seed=r"\d+",
    judge=alternatives(CONFIG.judges),
    encoder=alternatives(CONFIG.models),
    template=r"[a-z]+-\d+",
    part="labelled|unlabelled|train|test",
    run=r"(models|teachers|students)/.+",
    questions=alternatives(CONFIG.questions),
    task=alternatives(CONFIG.tasks),
    weak=alternatives([*CONFIG.writers, "none"]),
    refiner=alternatives([*CONFIG.writers, "none"]),
    refinement=alternatives(CONFIG.refinements),
    fine_tuning=alternatives(CONFIG.fine_tunings),
    transfer=alternatives(CONFIG.transfers),
    mixture=alternatives(CONFIG.mixtures),
    asked=r"[^/]+/[^/]+/seed-\d+/.+",
    wording=r"[^/]+/[^/]+/(plain|weak|seed-\d+/weak[-/].+)",


def code(name):
    """Digest of the sources of a stage: an edited helper reruns exactly the stages that import it."""
    return fingerprint(BASE / "scripts" / f"{name}.py")


def model_job(stage):
    """Resources of a stage that runs a model, as functions of the wildcards (scripts/w2s/allocation.py)."""

    def need(wildcards):
        output = str(workflow.get_rule(stage).output[0].apply_wildcards(wildcards))
        return stage_need(CONFIG, stage, wildcards, output)

    def at(key):
        return lambda wildcards: site(CONFIG, need(wildcards).gpus)[key]

    return {key: at(key) for key in site(CONFIG, 0)} | {
        "devices": lambda wildcards: need(wildcards).gpus,
        "layout": lambda wildcards: need(wildcards).layout,
        "pass_size": lambda wildcards: need(wildcards).pass_size,
        "mem_mb": lambda wildcards: need(wildcards).mem_mb,
        "cpus_per_task": lambda wildcards: RUNTIME.threads * max(1, need(wildcards).gpus),
        "runtime": lambda wildcards, input: stage_minutes(CONFIG, stage, wildcards, input),
    }


def refuse_impossible_start(workflow):
    """Stop a real run before its first job where it cannot succeed on this machine."""
    if RUNTIME.needs_gpu and workflow.local_exec and not has_gpu():
        raise WorkflowError(
            f"nothing was started: preset {CONFIG.preset!r} needs a GPU and this machine has none\n"
            "  instead: `make demo` runs the same workflow on a laptop; `snakemake -n` shows this preset's plan;\n"
            "           `snakemake --profile slurm` submits it on a cluster (docs/cluster.md)"
        )
    unpinned = PLAN.unpinned_sources()
    if unpinned:
        raise WorkflowError(
            f"nothing was started: source {unpinned[0]!r} has no pinned revision\n"
            f"  where:   config.yaml: sources.{unpinned[0]}.revision\n"
            "  instead: write the commit hash that its page on the hub shows; a name such as 'main' moves"
        )
    try:
        if RUNTIME.isolate_network:
            check_isolation(IN_CONTAINERS)
        for image in IMAGES.values() if IN_CONTAINERS else ():
            check_image(image)
        if not workflow.local_exec:
            refuse_beside_orphans(Path.cwd())
    except W2SError as error:
        raise WorkflowError(f"nothing was started: {error}") from None


if workflow.is_main_process:
    cut_off_early(DAG)
if workflow.remote_exec:
    leave_marks_to_the_controller(FilePersistence)
IN_CONTAINERS = "apptainer" in {method.name.lower() for method in workflow.deployment_settings.deployment_method}
if IN_CONTAINERS:
    enter_containers(BASE, [*PLAN.local_folders(), STORE], PLAN.judge_variables())
PREFIX = shell_prefix(
    BASE,
    RUNTIME.launcher,
    IMAGES.values() if IN_CONTAINERS else None,
    isolated=RUNTIME.isolate_network,
    artifacts=STORE,
)
shell_command.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))  # Snakemake formats it once more
