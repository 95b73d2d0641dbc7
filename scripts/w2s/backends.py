"""Who generates: our own loop on transformers' models, or vLLM in an environment of its own.

One interface, :class:`Backend`. Both give each prompt random numbers of its own, keyed by (seed, prompt id), and both
hand their token ids to the same :func:`w2s.generation.finish`. But the random numbers differ, so the texts differ: the
backend is part of what an artifact is, not of how it is made.

vLLM pins its own torch and transformers. It is therefore never imported here: its Python runs
:mod:`w2s.vllm_worker`, which speaks JSON lines (docs/generation.md).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from w2s import generation, models, vllm_worker
from w2s.encoding import Encoding
from w2s.errors import ArtifactError, EnvironmentProblem
from w2s.generation import Generation, Prompt, Sampling
from w2s.strict_json import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VLLM = "vllm"
HOW = "an environment made from envs/vllm.in (docs/generation.md), its Python as runtime.vllm_python or --vllm-python"
# The seeds of torch's generators are signed.
SEEDS = (1 << 63) - 1
# What the worker's processes must not take over from ours.
NOT_ITS_OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class Backend(Protocol):
    """Draws responses.

    Attributes:
        prompts_at_once: how many long ones it answers together; None if it is best given all prompts there are.
    """

    @property
    def prompts_at_once(self) -> int | None: ...

    def generate_each(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Generation]]:
        """One response to each prompt, as they end: the place among ``prompts`` and the response."""


@dataclass(frozen=True)
class Transformers:
    """:func:`w2s.generation.generate_each` on a model of the library."""

    folder: Path
    precision: str = "float32"
    device: str = "auto"
    batch_size: int = 64
    progress: bool = False

    @property
    def prompts_at_once(self) -> int:
        """See :class:`Backend`."""
        return self.batch_size

    @functools.cached_property
    def model(self) -> PreTrainedModel:
        """The model, loaded once."""
        return models.load_causal(self.folder, self.precision, self.device)

    def generate_each(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Generation]]:
        """See :class:`Backend`."""
        encoding = Encoding.load(self.folder)
        return generation.generate_each(
            self.model, encoding, prompts, sampling, self.batch_size, self.progress
        )


@dataclass(frozen=True)
class Vllm:
    """vLLM in a process of another Python; ``batch_size`` and memory are its own affair.

    Attributes:
        folder: model in the hub's format.
        precision: of weights and computation.
        python: the interpreter of vLLM's environment.
    """

    folder: Path
    precision: str
    python: Path | None
    prompts_at_once: None = None  # each call starts it anew

    def generate_each(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Generation]]:
        """See :class:`Backend`.

        Raises:
            EnvironmentProblem: no such Python, no vLLM in it, or vLLM gave up.
            ArtifactError: a model that wants code of its own or has no safetensors.
            DataError: a prompt leaves too few positions for the new tokens.
        """
        config, encoding = models.read_config(self.folder), Encoding.load(self.folder)
        _refuse_unreadable(self.folder)
        ids = generation.prompts_ids(encoding, prompts)
        generation.check_positions(
            prompts, ids, sampling.max_new_tokens, generation.positions(config, encoding)
        )
        asked = [
            {"place": place, "prompt": tokens, "seed": generation.prompt_key(sampling.seed, name) & SEEDS}
            for place, ((name, _), tokens) in enumerate(zip(prompts, ids, strict=True))
        ]
        for answer in _converse(self._interpreter(), [self._settings(encoding, sampling), *asked]):
            found = generation.finish(encoding, answer["new"], sampling)
            if answer["ended"] == "stop" and found.finished == generation.LENGTH:
                found = replace(found, finished=generation.EOS)  # an end token that vLLM did not hand over
            yield answer["place"], found

    def _settings(self, encoding: Encoding, sampling: Sampling) -> dict[str, Any]:
        return {
            "engine": {
                "model": str(self.folder),
                "dtype": self.precision,
                "load_format": "safetensors",
                "trust_remote_code": False,
                "tensor_parallel_size": _visible_gpus(),
                "disable_log_stats": True,
            },
            "sampling": {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_new_tokens,
                "stop": list(sampling.stop),
                # The declared end token and no other, whatever the model's own files say.
                "stop_token_ids": [encoding.eos_id],
                "ignore_eos": True,
            },
        }

    def _interpreter(self) -> Path:
        if self.python is None:
            raise EnvironmentProblem("the vLLM backend needs a Python that has vLLM", instead=HOW)
        if not os.access(self.python, os.X_OK):
            raise EnvironmentProblem("no Python there for the vLLM backend", where=self.python, instead=HOW)
        return self.python


def choose(
    name: str,
    folder: Path,
    precision: str,
    device: str,
    batch_size: int,
    python: Path | None,
    progress: bool = False,
) -> Backend:
    """The backend of that name, transformers or vllm, for the model in ``folder``."""
    if name == VLLM:
        return Vllm(folder, precision, python)
    return Transformers(folder, precision, device, batch_size, progress)


def _converse(python: Path, lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give ``lines`` to a worker and yield what it says; it does not outlive this."""
    environment = {name: value for name, value in os.environ.items() if name not in NOT_ITS_OWN}
    environment |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    worker = subprocess.Popen(
        [str(python), vllm_worker.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        process_group=0,
    )
    assert worker.stdin is not None and worker.stdout is not None
    try:
        # It reads all of it before it does anything else.
        worker.stdin.writelines(json.dumps(line) + "\n" for line in lines)
        worker.stdin.close()
        for line in worker.stdout:
            answer = json.loads(line)
            if "missing" in answer:
                raise EnvironmentProblem(f"no vLLM ({answer['missing']})", where=python, instead=HOW)
            yield answer
        if code := worker.wait():
            raise EnvironmentProblem(
                f"vLLM ended with exit code {code}; its messages are above",
                where=python,
                instead="--backend transformers, which changes the texts",
            )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)  # with the processes that vLLM has for further GPUs
        worker.wait()


def _visible_gpus() -> int:
    """The GPUs that this job was given; vLLM divides the model among all of them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return max(1, len([name for name in given.split(",") if name.strip()]))


def _refuse_unreadable(folder: Path) -> None:
    """Refuse weights that are not safetensors, and what vLLM's transformers would read without noticing what it lacks."""
    if not list(folder.glob("*.safetensors")):
        raise ArtifactError("no safetensors weights", where=folder, instead="a folder made by import_model")
    path = folder / models.CONFIG
    declared = read_object(path)
    if "rope_parameters" in declared and "rope_theta" not in declared:
        raise EnvironmentProblem(
            "the model's rotary positions are written as transformers 5 does, which vLLM's transformers would take "
            "for its own default",
            where=f"{path}, key rope_parameters",
            instead="--backend transformers, which changes the texts",
        )
