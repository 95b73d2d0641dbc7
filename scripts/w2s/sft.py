"""Supervised fine-tuning on preferred responses, for teachers and students alike. Paper A, Tables 7 and 8.

The loss of a batch is the mean over its tokens of

    -log p(token | prompt, response so far),

over the response and its EOS (``--loss-on completion``) or over the prompt as well (``--loss-on all``). The mean is
over the tokens of the whole global batch, however it is divided.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from w2s import cli, training
from w2s.encoding import Encoding
from w2s.tables import PARTS, read_labelled


def arguments(documentation: str) -> cli.StageParser:
    """The command line of both SFT stages."""
    parser = cli.StageParser(documentation)
    parser.input("--model", help="language model to begin with")
    parser.input("--examples", help="examples")
    parser.input("--split", help="split of the examples")
    parser.input("--labels", help="which response is preferred, for each example of the part")
    parser.output("--output", help="manifest of the trained model")
    parser.spec("--part", choices=PARTS, help="part of the split to train on")
    parser.spec("--epochs", type=float, default=1.0, help="passes over the part")
    parser.spec(
        "--loss-on", choices=("completion", "all"), default="completion", help="tokens that the loss counts"
    )
    parser.spec(
        "--dropout", type=float, default=0.1, help="on hidden states; 0.1 is OPT's own, which the paper kept"
    )
    training.add_optimisation(parser)
    training.add_lora(parser)
    return parser


def run(args: argparse.Namespace, script: str | Path) -> None:
    """Train ``args.model`` on the preferred responses and leave the artifact at ``args.output``."""
    training.check_environment(args)
    labelled, _ = read_labelled(args.examples, args.split, args.part, args.labels)
    encoding = Encoding.load(args.model.parent)
    columns = tokenised(
        labelled["id"], labelled["prompt"], training.chosen_and_rejected(labelled)[0], encoding, args.loss_on
    )
    parents = {"model": args.model, "examples": args.examples, "split": args.split, "labels": args.labels}

    def make(ordered: training.Columns, settings: dict[str, Any]) -> training.Job:
        return job(args, ordered, settings)

    tokens = sum(len(ids) for rows in columns.values() for ids in rows)
    training.fit(args, parents, columns, make, script=script, facts={"tokens_per_epoch": tokens})


def tokenised(ids: Any, prompts: Any, responses: Any, encoding: Encoding, loss_on: str) -> training.Columns:
    """Rows as token ids: ``prompt_ids`` (BOS and prompt) and ``response_ids`` (response and EOS), which carry the loss.

    With ``loss_on`` "all" the prompt's tokens but the first, which nothing predicts, count as response.

    Raises:
        DataError: a sequence is beyond the model's positions; its id is named. Nothing is ever cut.
    """
    rows: training.Columns = {"prompt_ids": [], "response_ids": []}
    starts, ends = encoding.prompts_ids(list(prompts)), encoding.responses_ids(list(responses))
    for row, start, end in zip(ids, starts, ends, strict=True):
        encoding.check_length(len(start) + len(end), f"id {row}")
        unscored = 1 if loss_on == "all" else len(start)
        rows["prompt_ids"].append(start[:unscored])
        rows["response_ids"].append(start[unscored:] + end)
    return rows


def job(args: argparse.Namespace, ordered: training.Columns, settings: dict[str, Any]) -> training.Job:
    """TRL's SFT trainer on rows that are tokenised and in training order."""
    from w2s import trainable, trainers  # before trl, for w2s.compat

    # isort: split
    from trl import SFTConfig

    folder = args.model.parent
    config = SFTConfig(
        **settings,
        max_length=None,
        packing=False,
        padding_free=False,
        completion_only_loss=False,  # the labels say it already
        loss_type="nll",
        dataset_kwargs={"skip_prepare_dataset": True},
        shuffle_dataset=False,
        use_liger_kernel=False,
        activation_offloading=False,
    )
    trainer = trainers.SFT(
        trainable.policy(folder, args.dropout, args.seed),
        config,
        Encoding.load(folder).pad_id,
        train_dataset=trainers.dataset(ordered),
        processing_class=trainable.tokenizer(folder),
        peft_config=trainable.lora(args),
    )
    return training.Job(
        trainers.watch(trainer), trainable.copy_tokenizer(folder), lambda: trainable.adapted(args)
    )
