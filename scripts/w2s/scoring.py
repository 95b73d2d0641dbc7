"""Log-probabilities of responses under a model.

The score of a response y to a prompt x is ``log pi(y | x)``: the sum over the tokens of y, its end token
included, of the log-probability given everything before. It is kept per response, not per pair, so that
implicit rewards, reference log-probabilities, perplexities and labels are arithmetic on it.

Sequences are sorted by length and batched up to a budget of tokens, padding counted. Padding is on the
right, where causal attention cannot see it, so a score does not depend on its batch (up to rounding). Only
the positions that predict a response token go through the language-model head: its output is the largest
tensor by far.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from w2s.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from w2s.encoding import Encoding

SCORE_COLUMNS = ["id", "response", "log_prob_sum", "token_count"]
RESPONSES = (0, 1)
# Rows of logits that are turned into log-probabilities at once, to bound the memory of the float32 copy.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class ScoredSequence:
    """One sequence to score: ``ids`` whose first ``prompt_length`` are given and whose rest is scored."""

    id: str
    response: int
    ids: list[int]
    prompt_length: int

    @property
    def scored(self) -> int:
        """Number of tokens that are scored."""
        return len(self.ids) - self.prompt_length


@dataclass(frozen=True)
class Scores:
    """What scoring gave: the table and what it took."""

    table: pd.DataFrame
    forward_passes: int
    tokens: int
    padded_tokens: int


def sequences(examples: pd.DataFrame, encoding: Encoding) -> list[ScoredSequence]:
    """Two sequences per example, one per response, ended by the EOS.

    Raises:
        DataError: a sequence is beyond the model's positions, or has nothing in front of its first scored
        token.
    """
    prompts = encoding.prompts_ids(examples["prompt"].tolist())
    found = []
    for response in RESPONSES:
        answers = encoding.responses_ids(examples[f"response_{response}"].tolist())
        for row, prompt, answer in zip(examples["id"], prompts, answers, strict=True):
            where = f"id {row}, response {response}"
            if not prompt:
                raise DataError(
                    "nothing predicts the response: empty prompt, tokenizer without BOS", where=where
                )
            encoding.check_length(len(prompt) + len(answer), where)
            found.append(ScoredSequence(row, response, prompt + answer, len(prompt)))
    return found


def batches(items: Sequence[ScoredSequence], batch_tokens: int) -> list[list[ScoredSequence]]:
    """Group sequences, longest first, so that rows times longest row is at most ``batch_tokens``.

    A single sequence beyond the budget makes a batch of its own. Longest first: a lack of memory shows at
    once.
    """
    ordered = sorted(items, key=lambda item: (-len(item.ids), item.id, item.response))
    grouped: list[list[ScoredSequence]] = []
    for item in ordered:
        if grouped and (len(grouped[-1]) + 1) * len(grouped[-1][0].ids) <= batch_tokens:
            grouped[-1].append(item)
        else:
            grouped.append([item])
    return grouped


def score(
    model: PreTrainedModel,
    encoding: Encoding,
    examples: pd.DataFrame,
    batch_tokens: int = 8192,
    progress: bool = False,
) -> Scores:
    """Score both responses of each example.

    Args:
        model: causal language model in evaluation mode.
        encoding: its tokenizer.
        examples: columns id, prompt, response_0, response_1.
        batch_tokens: tokens per forward pass, padding counted.
        progress: show a bar with pairs per second.

    Returns:
        Scores with one row per id and response, sorted by both; ``log_prob_sum`` is a float64 sum of float32
        log-probabilities in nats, ``token_count`` counts the end token.

    Raises:
        DataError: see :func:`sequences`; or a score is not a finite number, the row is named.
    """
    groups = batches(sequences(examples, encoding), batch_tokens)
    rows: list[tuple[str, int, float, int]] = []
    with tqdm(total=len(examples), unit="pair", disable=not progress, smoothing=0.05, mininterval=1) as bar:
        for group in groups:
            for item, total in zip(group, score_batch(model, group, encoding.pad_id), strict=True):
                rows.append((item.id, item.response, total, item.scored))
            bar.update(len(group) / len(RESPONSES))
    table = pd.DataFrame(rows, columns=SCORE_COLUMNS).sort_values(["id", "response"], ignore_index=True)
    table = table.astype({"response": "int8", "log_prob_sum": "float64", "token_count": "int64"})
    check_complete(table, examples["id"])
    return Scores(
        table,
        forward_passes=len(groups),
        tokens=sum(len(item.ids) for group in groups for item in group),
        padded_tokens=sum(len(group) * len(group[0].ids) for group in groups),
    )


@torch.inference_mode()
def score_batch(model: PreTrainedModel, group: Sequence[ScoredSequence], pad_id: int) -> np.ndarray:
    """Log-probability sums of a batch, one forward pass; float64, shape (rows,)."""
    ids, mask, scored = padded(group, pad_id)
    # The logits at position t predict the token at t + 1.
    predicts = scored[:, 1:]
    with head_only_at(model, predicts.to(model.device)):
        output = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
    logits = output.logits
    targets = ids[:, 1:][predicts].to(model.device)
    if logits.shape[:2] != (1, len(targets)):
        shape = tuple(logits.shape)
        raise ArtifactError(f"the head of {type(model).__name__} gave logits of the unexpected shape {shape}")
    token_log_probs = log_probs(logits[0], targets).double().cpu().numpy()
    counts = [item.scored for item in group]
    # Added on the CPU: sums by index on a GPU differ from run to run.
    return np.add.reduceat(token_log_probs, np.cumsum([0, *counts[:-1]]))


@contextlib.contextmanager
def head_only_at(model: PreTrainedModel, positions: torch.Tensor) -> Iterator[None]:
    """Within, the model's head sees the hidden states at ``positions`` only: logits are (1, chosen, words).

    Done by a hook on the head's input, so that whatever an architecture does behind its head (scaling,
    capping) still happens.

    Args:
        positions: mask of shape (rows, longest - 1).
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ArtifactError(f"{type(model).__name__} has no language-model head")

    def select(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][:, :-1][positions].unsqueeze(0), *arguments[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def log_probs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Float32 log-probabilities of ``targets`` (tokens,) under ``logits`` (tokens, words)."""
    parts = []
    for rows, wanted in zip(logits.split(ROWS_AT_ONCE), targets.split(ROWS_AT_ONCE), strict=True):
        rows = rows.float()
        parts.append(rows.gather(-1, wanted[:, None]).squeeze(-1) - rows.logsumexp(-1))
    return torch.cat(parts)


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


def padded(group: Sequence[ScoredSequence], pad_id: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and mask of scored tokens of a batch, padded on the right; each (rows, longest)."""
    longest = max(len(item.ids) for item in group)
    ids = torch.full((len(group), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(group), longest), dtype=torch.long)
    scored = torch.zeros((len(group), longest), dtype=torch.bool)
    for row, item in enumerate(group):
        length = len(item.ids)
        ids[row, :length] = torch.tensor(item.ids)
        mask[row, :length] = 1
        scored[row, item.prompt_length : length] = True
    return ids, mask, scored
