"""Pairs to measure with: drawn like HH-RLHF's, or the real ones from a folder."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
from w2s.packing import Row

LONGEST = 512
PAD, END, VOCABULARY = 1, 2, 50272
ASSISTANT = "\n\nAssistant:"
# Deciles of the token counts of 4206 pairs of HH-RLHF (its four subsets alike, OPT's tokenizer, sequences of at most 512
# tokens): prompts with their BOS, responses with their end token. The logarithms of a pair's two response lengths are
# correlated by one half, those of prompts and responses not at all.
PROMPT = (12, 19, 22, 34, 68, 101, 135, 172, 218, 287, 492)
RESPONSE = (2, 12, 20, 28, 39, 52, 67, 85, 112, 157, 451)
CORRELATION = 0.5
DECILES = np.linspace(0, 1, 11)


def drawn(number: int, seed: int = 0, vocabulary: int = VOCABULARY) -> list[Row]:
    """Random tokens with lengths drawn by inverse distribution, prompts stratified so that few rows are like many."""
    generator = np.random.default_rng(seed)
    prompts = (generator.permutation(number) + generator.random(number)) / number
    return [_row(f"drawn-{row}", float(prompts[row]), generator, vocabulary) for row in range(number)]


def _row(name: str, prompt_quantile: float, generator: np.random.Generator, vocabulary: int) -> Row:
    prompt = round(float(np.interp(prompt_quantile, DECILES, PROMPT)))
    mix = np.array([[1, 0], [CORRELATION, (1 - CORRELATION**2) ** 0.5]])
    while True:
        quantiles = [NormalDist().cdf(value) for value in mix @ generator.standard_normal(2)]
        lengths = [round(float(length)) for length in np.interp(quantiles, DECILES, RESPONSE)]
        if prompt + max(lengths) <= LONGEST:
            break
    ids = [generator.integers(3, vocabulary, length).tolist() for length in (prompt, *lengths)]
    return Row(name, ids[0], tuple([*answer[:-1], END] for answer in ids[1:]))


def real(folder: Path, tokenizer: Path, number: int) -> list[Row]:
    """Every k-th usable pair of the ``*.jsonl.gz`` files with ``chosen`` and ``rejected`` in ``folder``."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    encoder.no_truncation()
    texts = [text for path in sorted(folder.glob("*.jsonl.gz")) for text in _texts(path)]
    found: list[Row] = []
    for place, parts in enumerate(texts[:: max(1, len(texts) // (2 * number))]):
        prompt, *answers = (item.ids for item in encoder.encode_batch(list(parts), add_special_tokens=False))
        row = Row(f"real-{place}", [END, *prompt], tuple([*answer, END] for answer in answers))
        if row.longest <= LONGEST:
            found.append(row)
    return found[:number]


def _texts(path: Path) -> list[tuple[str, str, str]]:
    """Prompt, chosen and rejected response of the pairs that differ in the last answer only."""
    found = []
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        pair = json.loads(line)
        end = pair["chosen"].rfind(ASSISTANT) + len(ASSISTANT)
        prompt = pair["chosen"][:end]
        if pair["rejected"].startswith(prompt):
            found.append((prompt, pair["chosen"][end:], pair["rejected"][end:]))
    return found
