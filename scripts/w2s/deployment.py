"""How the shell of a job reaches a stage: as a new process, through the worker, or inside a container.

The rules say ``python scripts/<stage>.py ...`` and, for a stage that runs a model, ``launch <threads> <GPUs> <layout>
scripts/<stage>.py ...``. Both are functions of the shell that every job begins with, kept out of the rules' text, so
that moving an environment changes no rule.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

from w2s import isolation, store
from w2s.images import Image

# What a job must see of its surroundings although a container starts from a clean environment (--cleanenv).
PASSED = (
    *("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "W2S_GPU_LOCKS", "HF_TOKEN", "HF_ENDPOINT", store.REUSE),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)


def store_folder(configured: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The absolute path of the artifact store, "" without one: the variable ``W2S_STORE`` wins, empty or not."""
    named = environment.get(store.VARIABLE, configured or "")
    return str(Path(named).expanduser().absolute()) if named else ""


def shell_prefix(
    base: Path, launcher: str, images: Iterable[Image] | None, *, isolated: bool = False, artifacts: str = ""
) -> str:
    """The beginning of every job's shell command.

    Args:
        base: the repository.
        launcher: "plain" or "worker".
        images: the container images if jobs run in them, else None.
        isolated: whether stages that need no network have none (scripts/w2s/isolation.py).
        artifacts: the artifact store, "" without one.
    """
    here = [sys.executable] if images is None else ["python"]
    worker = [*here, str(base / "scripts" / "w2s" / "worker.py"), "run"]
    forks = launcher == "worker" and images is None
    plain, quick, root = shlex.join(here), shlex.join(worker if forks else here), shlex.quote(str(base))
    # The worker's server is isolated as its first client is, and another one than that of those who talk.
    alone = shlex.join(["W2S_WORKER_ISOLATED=1", "command", *isolation.ALONE]) if isolated else "command"
    linked = shlex.join(isolation.with_loopback(here[0])) if isolated else ""
    talking = "|".join(f"scripts/{name}.py" for name in isolation.TALKING)
    launch = f"HF_HUB_OFFLINE=1 command {linked} {plain} {root}/scripts/w2s/launch.py --gpus $gpus --layout $layout"
    # The worker has neither GPUs nor a scheduler above it.
    locally = (
        'if [ "$gpus" = 0 ] && [ -z "${SLURM_JOB_ID:-}" ]; then python "$@"; return; fi; ' if forks else ""
    )
    environment = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        store.VARIABLE: artifacts,
        # The worker ends with this process (scripts/w2s/worker.py).
        "W2S_WORKER_OWNER": str(os.getpid()),
        # The C library gives large blocks back to the system at every turn and the system clears them anew: on a CPU
        # half of the time of a pass over a large vocabulary. So it keeps them.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**33),
        "MALLOC_TOP_PAD_": str(2**26),
    }
    if images is not None:
        environment["W2S_IMAGES"] = " ".join(f"{image.seen_as}={image.digest}" for image in images)
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    return (
        f"set -euo pipefail; export {exports}; "
        # Only `fetch` may ask the hubs: for all others they are switched off.
        f'python() {{ case "$1" in scripts/fetch.py) command {plain} {root}/"$1" "${{@:2}}";;'
        f' {talking}) HF_HUB_OFFLINE=1 command {quick} {root}/"$1" "${{@:2}}";;'
        f' *) HF_HUB_OFFLINE=1 {alone} {quick} {root}/"$1" "${{@:2}}";; esac; }}; '
        f"launch() {{ local gpus=$2 layout=$3; export OMP_NUM_THREADS=$1; shift 3; {locally}"
        f'{launch} {root}/"$1" "${{@:2}}"; }}; '
    )


def enter_containers(
    base: Path,
    folders: Iterable[str],
    variables: Iterable[str] = (),
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Let containers see what jobs need: a few variables, this repository, folders of local data, the artifact store, the
    hub's cache.

    ``variables`` are more variables to pass on: where judges are reached, and their keys.

    Set here, where each job's own Snakemake passes too, and not in a profile: on a cluster the scheduler tells a job
    its GPUs only when it starts.
    """
    for name in (*PASSED, *variables):
        if name in environment:
            environment[f"APPTAINERENV_{name}"] = environment[name]
    cache = environment.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    environment["APPTAINERENV_HF_HOME"] = cache
    wanted = [str(base), *folders, cache]
    already = environment.get("APPTAINER_BIND", "").split(",")
    binds = [
        path
        for path in dict.fromkeys([*already, *wanted])
        if path and (path in already or Path(path).is_dir())
    ]
    environment["APPTAINER_BIND"] = ",".join(binds)
