"""Log-probabilities of responses under a model.

The score of a response y to a prompt x is ``log pi(y | x)``: the sum over the tokens of y, its end token
included, of the log-probability given everything before. It is kept per response, not per pair, so that
implicit rewards, reference log-probabilities, perplexities and labels are arithmetic on it.

The two responses of an example are one row with one prompt where the architecture allows it, see
:mod:`w2s.packing`. Rows are sorted by length and batched up to a budget of tokens, padding counted. Padding is
on the right, where attention does not see it, so a score does not depend on its batch (up to rounding). Only the
positions that predict a response token go through the language-model head, see :mod:`w2s.heads`. What is done survives an
interruption and may be divided among processes, see :mod:`w2s.shards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from w2s.errors import DataError
from w2s.heads import token_log_probs
from w2s.packing import Batch, Layout, Row, model_inputs
from w2s.shards import Shards

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from w2s.encoding import Encoding

SCORE_COLUMNS = ["id", "response", "log_prob_sum", "token_count"]
KEYS = 2
RESPONSES = (0, 1)


@dataclass(frozen=True)
class Scores:
    """What scoring gave: the table and what it took.

    Attributes:
        table: one row per id and response, sorted by both; SCORE_COLUMNS.
        forward_passes: number of batches.
        tokens: tokens that were computed; a prompt that two responses share counts once.
        padded_tokens: the same with padding.
        packed: examples whose responses shared their prompt.
        computed: examples that this process scored; the others were scored by another one or an earlier attempt.
    """

    table: pd.DataFrame
    forward_passes: int
    tokens: int
    padded_tokens: int
    packed: int
    computed: float


def pairs(examples: pd.DataFrame, encoding: Encoding) -> list[Row]:
    """One row per example with both responses, ended by the EOS.

    Raises:
        DataError: a sequence is beyond the model's positions, or has nothing in front of its first scored
        token.
    """
    prompts = encoding.prompts_ids(examples["prompt"].tolist())
    answers = [encoding.responses_ids(examples[f"response_{response}"].tolist()) for response in RESPONSES]
    found = []
    for row, prompt, *both in zip(examples["id"], prompts, *answers, strict=True):
        for response, answer in zip(RESPONSES, both, strict=True):
            where = f"id {row}, response {response}"
            if not prompt:
                raise DataError(
                    "nothing predicts the response: empty prompt, tokenizer without BOS", where=where
                )
            encoding.check_length(len(prompt) + len(answer), where)
        found.append(Row(row, prompt, tuple(both)))
    return found


def batches(rows: Sequence[Row], batch_tokens: int) -> list[list[Row]]:
    """Group rows, longest first, so that rows times longest row is at most ``batch_tokens``.

    A single row beyond the budget makes a batch of its own. Longest first: a lack of memory shows at once.
    Packed rows and rows of one response are not mixed: they want different masks.
    """
    grouped: list[list[Row]] = []
    for packed in (True, False):
        kind = [row for row in rows if (len(row.answers) > 1) == packed]
        open_group: list[Row] = []
        for row in sorted(kind, key=lambda row: (-len(row), row.id, row.first)):
            if open_group and (len(open_group) + 1) * len(open_group[0]) <= batch_tokens:
                open_group.append(row)
            else:
                open_group = [row]
                grouped.append(open_group)
    return grouped


def score(
    model: PreTrainedModel,
    encoding: Encoding,
    examples: pd.DataFrame,
    batch_tokens: int = 8192,
    progress: bool = False,
    shards: Shards | None = None,
) -> Scores:
    """Score both responses of each example.

    Args:
        model: causal language model in evaluation mode.
        encoding: its tokenizer.
        examples: columns id, prompt, response_0, response_1.
        batch_tokens: tokens per forward pass, padding counted.
        progress: show a bar with pairs per second.
        shards: what earlier attempts have done, and where to keep what this one does; SCORE_COLUMNS, two keys.

    Returns:
        Scores with one row per id and response, sorted by both; ``log_prob_sum`` is a float64 sum of float32
        log-probabilities in nats, ``token_count`` counts the end token.

    Raises:
        DataError: see :func:`pairs`; or a score is not a finite number, the row is named.
    """
    scores = score_rows(model, pairs(examples, encoding), encoding.pad_id, batch_tokens, progress, shards)
    check_complete(scores.table, examples["id"])
    return scores


def score_rows(
    model: PreTrainedModel,
    rows: Sequence[Row],
    pad_id: int,
    batch_tokens: int,
    progress: bool = False,
    shards: Shards | None = None,
) -> Scores:
    """:func:`score` of examples that are tokenised, without the proof that none is missing."""
    shards = shards or Shards(SCORE_COLUMNS, KEYS)
    layout = Layout.of(model)
    groups = batches(layout.divide(rows), batch_tokens)
    todo = shards.mine(groups, keys)
    computed = sum(len(row.answers) for group in todo for row in group) / len(RESPONSES)
    with tqdm(total=computed, unit="pair", disable=not progress, smoothing=0.05, mininterval=1) as bar:
        for group in todo:
            sums = score_batch(model, group, pad_id, layout)
            shards.add(scored(group, sums))
            bar.update(sum(len(row.answers) for row in group) / len(RESPONSES))
    return Scores(
        shards.table().astype({"response": "int8", "log_prob_sum": "float64", "token_count": "int64"}),
        forward_passes=len(groups),
        tokens=sum(len(row) for group in groups for row in group),
        padded_tokens=sum(len(group) * len(group[0]) for group in groups),
        packed=sum(len(row.answers) > 1 for group in groups for row in group),
        computed=computed,
    )


def keys(row: Row) -> list[tuple[str, int]]:
    """Which scores a row gives: id and response."""
    return [(row.id, response) for response in range(row.first, row.first + len(row.answers))]


def scored(group: Sequence[Row], sums: np.ndarray) -> list[tuple[str, int, float, int]]:
    """A batch's rows of the table; ``sums`` as :func:`score_batch` gives them."""
    answers = [
        (key, len(answer)) for row in group for key, answer in zip(keys(row), row.answers, strict=True)
    ]
    return [(*key, float(total), count) for (key, count), total in zip(answers, sums, strict=True)]


@torch.inference_mode()
def score_batch(model: PreTrainedModel, group: Sequence[Row], pad_id: int, layout: Layout) -> np.ndarray:
    """Log-probability sums of a batch, one forward pass; float64, (responses,), row after row."""
    batch = Batch.of([[row] for row in group], pad_id)
    on = model.device
    tensors = (batch.ids.to(on), batch.segments.to(on), batch.positions.to(on))
    inputs = model_inputs(*tensors, layout.attention, model.dtype)
    found = token_log_probs(model, inputs, batch.at.to(on), batch.targets.to(on))
    # Added on the CPU: sums by index on a GPU differ from run to run.
    return np.add.reduceat(found.double().cpu().numpy(), np.cumsum([0, *batch.counts[:-1]]))


def check_complete(table: pd.DataFrame, ids: pd.Series) -> None:
    """Prove that each id has exactly one finite score per response.

    Raises:
        DataError: a row is missing, double or not a number; the first one is named.
    """
    expected = pd.MultiIndex.from_product([ids, RESPONSES])
    found = pd.MultiIndex.from_frame(table[["id", "response"]])
    for problem, rows in (
        ("twice", found[found.duplicated()]),
        ("missing", expected.difference(found)),
        ("not among the examples", found.difference(expected)),
    ):
        if len(rows):
            row, response = rows[0]
            raise DataError(f"{len(rows)} scores are {problem}", where=f"id {row}, response {response}")
    broken = table[~np.isfinite(table["log_prob_sum"])]
    if len(broken):
        first = broken.iloc[0]
        raise DataError(
            f"{len(broken)} scores are not finite numbers ({first['log_prob_sum']})",
            where=f"id {first['id']}, response {first['response']}",
            instead="--precision float32 or bfloat16, and a model whose training did not diverge",
        )
