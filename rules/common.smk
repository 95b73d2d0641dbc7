# What all rules share: the validated configuration, the plan drawn from it, and how a stage is started.

import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.shell import shell as shell_command

BASE = Path(workflow.basedir)
sys.path.insert(0, str(BASE / "scripts"))

from w2s.config import load_config, read_yaml
from w2s.errors import W2SError
from w2s.fingerprint import fingerprint
from w2s.plan import Plan, alternatives, cell_path, flags, has_gpu

# The files in the order of the merge: Snakemake lists those of the command line, which win, first.
OVERLAYS = list(workflow.overwrite_configfiles)
CONFIG_FILES = [file for file in workflow.configfiles if file not in OVERLAYS] + OVERLAYS

try:
    CONFIG = load_config(config, CONFIG_FILES)
    PLAN = Plan(CONFIG)
except W2SError as error:
    raise WorkflowError(f"configuration refused, nothing was started\n{error}") from None

IMAGES = {kind: str(BASE / image) for kind, image in read_yaml(BASE / "containers" / "images.yaml").items()}
RUNTIME = CONFIG.runtime
ROOT = PLAN.root
CELL = "{data}/{share}/seed-{seed}"


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
    part="labelled|unlabelled|test",
    run=r"(models|teachers|students)/.+",


def code(name):
    """Digest of the sources of a stage: an edited helper reruns exactly the stages that import it."""
    return fingerprint(BASE / "scripts" / f"{name}.py")


def python_function():
    """The shell's `python`: this environment's interpreter, scripts looked up beside the Snakefile.

    In the worker mode a script is forked from a process that has the model libraries loaded (scripts/w2s/worker.py).
    Kept out of the rules' text, so that moving an environment changes no rule.
    """
    if "apptainer" in {method.name.lower() for method in workflow.deployment_settings.deployment_method}:
        return ""
    plain = shlex.join([sys.executable])
    worker = shlex.join([sys.executable, str(BASE / "scripts" / "w2s" / "worker.py"), "run"])
    launcher = worker if RUNTIME.launcher == "worker" else plain
    script = f'{shlex.quote(str(BASE))}/"$1" "${{@:2}}"'
    # Only `fetch` may use the network: for all others the hubs are switched off.
    function = (
        f'python() {{ if [ "$1" = scripts/fetch.py ]; then command {plain} {script};'
        f" else HF_HUB_OFFLINE=1 command {launcher} {script}; fi; }}; "
    )
    return function.replace("{", "{{").replace("}", "}}")  # Snakemake formats the prefix once more


def refuse_impossible_start(workflow):
    """Stop a real run before its first job where it cannot succeed on this machine."""
    if RUNTIME.needs_gpu and workflow.local_exec and not has_gpu():
        raise WorkflowError(
            f"nothing was started: preset {CONFIG.preset!r} needs a GPU and this machine has none\n"
            "  instead: `make demo` runs the same workflow on a laptop; `snakemake -n` shows this preset's plan;\n"
            "           on a cluster, submit it with an executor (README, 'On a cluster')"
        )
    unpinned = PLAN.unpinned_sources()
    if unpinned:
        raise WorkflowError(
            f"nothing was started: source {unpinned[0]!r} has no pinned revision\n"
            f"  where:   config.yaml: sources.{unpinned[0]}.revision\n"
            "  instead: write the commit hash that its page on the hub shows; a name such as 'main' moves"
        )


# The worker ends with this process (scripts/w2s/worker.py). The C library gives large blocks back to the system at every
# turn and the system clears them anew: on a CPU half of the time of a pass over a large vocabulary. So it keeps them.
shell_command.prefix(
    f"set -euo pipefail; export HF_HUB_DISABLE_TELEMETRY=1 W2S_WORKER_OWNER={os.getpid()}"
    f" MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_={2**33} MALLOC_TOP_PAD_={2**26}; {python_function()}"
)
