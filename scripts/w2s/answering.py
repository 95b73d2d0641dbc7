"""What all stages share that let a model answer prompts: its settings, and answers that survive an interruption.

Light at import: torch and the model are loaded in :func:`answered`, after the arguments and the data were found right.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import Draft, Parents, load
from w2s.errors import DataError
from w2s.processes import world
from w2s.tables import named

if TYPE_CHECKING:
    import pandas as pd

    from w2s.generation import Prompt

COLUMNS = ["id", "response", "tokens", "finished"]
# Prompts of a group, in batches.
GROUP = 8


def add_sampling(parser: cli.StageParser, stop: Sequence[str]) -> None:
    """Add how answers are drawn and with what; ``stop`` are the texts that end one unless told otherwise."""
    parser.spec("--temperature", type=float, default=0.7, help="0 takes the likeliest token")
    parser.spec(
        "--top-p", type=float, default=1.0, help="sample from the likeliest tokens of this probability"
    )
    parser.spec("--max-new-tokens", type=cli.positive_int, default=256)
    parser.spec("--stop", nargs="*", default=list(stop), help="texts that end a response; they are cut off")
    parser.spec("--seed", type=int, default=0)
    parser.spec("--precision", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.spec(
        "--backend",
        choices=["transformers", "vllm"],
        default="transformers",
        help="who draws: our loop on transformers' models, or vLLM; their random numbers differ",
    )
    parser.option(
        "--batch-size",
        type=cli.positive_int,
        default=64,
        help="how many of the longest prompts are answered together; of shorter ones more, with as many tokens",
    )
    parser.option("--vllm-python", type=Path, help="Python of the environment with vLLM, for --backend vllm")
    parser.option("--device", default="auto", help="auto takes the GPU if there is one")


@contextlib.contextmanager
def answered(
    args: argparse.Namespace, parents: Parents, script: str | Path, prompts: Sequence[Prompt]
) -> Iterator[tuple[Draft | None, pd.DataFrame]]:
    """The artifact in the making (first process only, else None) and the answers: COLUMNS, in the prompts' order.

    Args:
        args: parsed arguments of the stage, with ``model``, ``output`` and those of :func:`add_sampling`.
        parents: manifests that the artifact is made from.
        script: the stage's script.
        prompts: (id, text or token ids) of each; no id twice.

    Raises:
        DataError: see :func:`w2s.generation.generate_each`; or a prompt was left without an answer.
    """
    import pandas as pd
    import torch

    from w2s import backends
    from w2s.generation import Sampling
    from w2s.shards import resumable

    torch.set_num_threads(cli.threads())
    with resumable(args, parents, script, COLUMNS) as (artifact, shards):
        backend = backends.choose(
            args.backend,
            load(args.model).folder,
            args.precision,
            args.device,
            args.batch_size,
            args.vllm_python,
            progress=artifact is not None,
        )
        sampling = Sampling(args.temperature, args.top_p, args.max_new_tokens, tuple(args.stop), args.seed)
        for group in shards.mine(groups(prompts, backend.prompts_at_once), lambda prompt: [prompt[:1]]):
            shards.add(
                (group[place][0], answer.response, answer.tokens, answer.finished)
                for place, answer in backend.generate_each(group, sampling)
            )
        ids = pd.DataFrame({"id": [name for name, _ in prompts]})
        table = ids.merge(shards.table(), on="id", how="left", validate="one_to_one")
        if artifact is not None:
            if table["response"].isna().any():
                raise DataError(
                    "prompts without a response", where=named(table["id"][table["response"].isna()])
                )
            artifact.measure(processes=world()[1], resumed=shards.resumed)
        yield artifact, table


def groups(prompts: Sequence[Prompt], at_once: int | None) -> list[list[Prompt]]:
    """Prompts in groups that are answered one after another, each with short and long ones alike.

    A group's last responses leave the machine half idle, so it should hold many times what runs ``at_once``; an
    interrupted attempt loses the one that it was at. None: all in one.
    """
    number = 1 if at_once is None else -(-len(prompts) // (GROUP * at_once))
    ordered = sorted(prompts, key=lambda prompt: (len(prompt[1]), prompt[0]))
    return [ordered[first::number] for first in range(number)]
