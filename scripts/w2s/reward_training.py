"""Training of reward models on comparisons, for gold judges and for teachers: what the two stages share.

With the reward r(x, y) of a response y to a prompt x, the loss of a pair is -log sigmoid(r(x, chosen) - r(x, rejected))
(Bradley-Terry). r is one number read by a linear map from the hidden state of the last token of BOS, prompt, response,
EOS; that map is new, the rest is the language model that training begins with.

A model that is trained so reads plain text: a chat template of its tokenizer is left behind, for whoever scores with the
model later would read the dialogue through it.

Light at import.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from w2s import training

if TYPE_CHECKING:
    import pandas as pd

    from w2s.encoding import Encoding

PAIR = ("chosen_ids", "rejected_ids")


def tokenised(labelled: pd.DataFrame, encoding: Encoding, max_tokens: int | None = None) -> training.Columns:
    """Pairs as token ids (BOS, prompt, response, EOS): ``id``, ``chosen_ids``, ``rejected_ids``.

    Pairs with a sequence beyond ``max_tokens`` are left out; None leaves out none.

    Raises:
        DataError: a sequence that is kept is beyond the model's positions; its id is named.
    """
    columns: training.Columns = {"id": [], "chosen_ids": [], "rejected_ids": []}
    chosen, rejected = (encoding.responses_ids(texts) for texts in training.chosen_and_rejected(labelled))
    prompts = encoding.prompts_ids(labelled["prompt"].tolist())
    for row, prompt, better, worse in zip(labelled["id"], prompts, chosen, rejected, strict=True):
        longest = len(prompt) + max(len(better), len(worse))
        if max_tokens is None or longest <= max_tokens:
            encoding.check_length(longest, f"id {row}")
            columns["id"].append(row)
            columns["chosen_ids"].append(prompt + better)
            columns["rejected_ids"].append(prompt + worse)
    return columns


def job(
    args: argparse.Namespace, encoding: Encoding, ordered: training.Columns, settings: dict[str, Any]
) -> training.Job:
    """TRL's reward trainer on pairs that are tokenised and in training order.

    Adapters are trained if ``args`` has the settings of :func:`w2s.training.add_lora` and a rank above 0; the map to the
    reward is trained whole in any case.
    """
    from w2s import trainable, trainers  # before trl, for w2s.compat

    # isort: split
    from trl import RewardConfig

    folder = args.model.parent
    adapters = trainable.lora(args, "SEQ_CLS") if hasattr(args, "lora_rank") else None

    def classifier() -> Any:
        return trainable.classifier(folder, args.dropout, encoding.pad_id, args.seed)

    config = RewardConfig(
        **settings,
        max_length=None,
        disable_dropout=False,  # the configuration says it; LoRA's own dropout stays
        center_rewards_coefficient=None,
        activation_offloading=False,
    )
    trainer = trainers.Reward(
        classifier(),
        config,
        train_dataset=trainers.dataset(ordered),
        processing_class=trainable.tokenizer(folder),
        peft_config=adapters,
    )
    return training.Job(
        trainers.watch(trainer),
        dataclasses.replace(encoding, chat_template=None).save,
        lambda: trainable.with_adapters(classifier(), adapters),
    )
