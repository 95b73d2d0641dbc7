"""One long table of everything that an experiment measured, a row per single measurement; what the scorecard reads.

Columns: experiment, data, share, student, arm, feedback, recipe, step, beta, metric, judge, seed, id, value. An id is a
test prompt's or an example's; the arm is ``untuned``, ``<feedback>``, ``<feedback>-sft`` or ``teacher``.

| metric | judge | value |
| --- | --- | --- |
| reward | gold model | gold reward of the arm's response to a test prompt |
| tokens | | tokens of that response |
| score | LLM | mean score of the response over both orders, 1 to 10 |
| win | LLM | 1, 1/2 or 0 against the human arm, mean over both orders |
| similarity | encoder | cosine of the response and the one that people chose |
| agreement | human, gold | 1 if a label of D_u is people's (the exact reward's) |
| chosen_reward, rejected_reward | gold model | of the data's response that a label of D_u prefers, of the other one |
| consistency | LLM | share of the majority among its votes on a pair |
| vote, votes | LLM | share of its votes for the response that a label prefers; their number |
| first_wins | LLM | 1, 1/2 or 0 for the response that was shown first, mean over both orders |
| length_difference | LLM | tokens of the arm's response minus those of the human arm's |
| malformed | LLM | share of its replies on a prompt or pair that were not in the form |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from w2s import agreement, judgements
from w2s.agreement import LabelFile
from w2s.artifact import Artifact, load
from w2s.errors import DataError, JoinError
from w2s.labelling import check_both_responses
from w2s.runs import Run, parse_cell, parse_run, share_name
from w2s.summary import Measured
from w2s.tables import check_unique, named, read_parquet

IDENTITY = ["experiment", "data", "share", "student", "arm", "feedback", "recipe", "step", "beta"]
COLUMNS = [*IDENTITY, "metric", "judge", "seed", "id", "value"]


class Book:
    """Collects measurements of one experiment.

    Args:
        experiment: its name.
        betas: recipe -> DPO beta.
    """

    def __init__(self, experiment: str, betas: Mapping[str, float]) -> None:
        self._experiment = experiment
        self._betas = betas
        self._frames: list[pd.DataFrame] = []

    def table(self) -> pd.DataFrame:
        """All measurements, COLUMNS."""
        if not self._frames:
            return pd.DataFrame(columns=COLUMNS)
        return pd.concat(self._frames, ignore_index=True)[COLUMNS]

    def of_run(
        self,
        cell: tuple[str, str, int],
        run: Run,
        metric: str,
        judge: str,
        ids: Iterable[str],
        values: Iterable,
    ) -> None:
        """Measurements of one model's responses; ``cell`` is (data, share, seed)."""
        beta = self._betas.get(run.recipe, np.nan)
        identity = (run.model, run.arm, run.feedback, run.recipe, run.step, beta)
        self._add(cell, identity, metric, judge, ids, values)

    def of_labels(
        self,
        cell: tuple[str, str, int],
        feedback: str,
        metric: str,
        judge: str,
        ids: Iterable,
        values: Iterable,
    ) -> None:
        """Measurements of one feedback's labels."""
        self._add(cell, ("", feedback, feedback, "", "", np.nan), metric, judge, ids, values)

    def _add(
        self,
        cell: tuple[str, str, int],
        identity: Sequence[str | float],
        metric: str,
        judge: str,
        ids: Iterable,
        values: Iterable,
    ) -> None:
        data, share, seed = cell
        frame = pd.DataFrame({"id": list(ids), "value": np.asarray(list(values), dtype=float)})
        names = dict(zip(IDENTITY, [self._experiment, data, share, *identity], strict=True))
        self._frames.append(frame.assign(**names, metric=metric, judge=judge, seed=seed))


def add_rewards(book: Book, measured: Sequence[Measured]) -> None:
    """Gold rewards, and the lengths of the responses, once per run."""
    told = set()
    for item in measured:
        cell = (item.data, item.share, item.seed)
        book.of_run(cell, item.run, "reward", item.gold, item.frame["id"], item.frame["value"])
        if "tokens" in item.frame and (cell, item.run) not in told:
            told.add((cell, item.run))
            book.of_run(cell, item.run, "tokens", "", item.frame["id"], item.frame["tokens"])


def add_agreement(
    book: Book, files: Sequence[LabelFile], truth: Mapping[str, dict[str, pd.DataFrame]]
) -> None:
    """Whether each label of D_u is people's, and the exact reward's where there is one."""
    for file in files:
        for against, labels in agreement.truth_of(truth, file.data).items():
            if against != file.policy:
                cells = agreement.agrees(file, labels, against)
                cell = (file.data, file.share, file.seed)
                book.of_labels(cell, file.feedback, "agreement", against, cells["id"], cells["value"])


def add_responses(book: Book, manifests: Sequence[Path], files: Sequence[LabelFile]) -> None:
    """Gold rewards of the responses that each feedback's labels prefer and of the others (paper A, Table 2)."""
    by_cell = _rewards_by_cell(manifests)
    for file in files:
        cell = (file.data, file.share, file.seed)
        for gold, wide in by_cell.get(cell, {}).items():
            labels = file.frame.set_index("id")["label"]
            missing = sorted(set(labels.index) - set(wide.index))
            if missing:
                raise JoinError(f"labelled examples without gold rewards: {named(missing)}", where=gold)
            rewards = wide.loc[labels.index]
            second = labels.to_numpy() == 1
            chosen = np.where(second, rewards[1], rewards[0])
            rejected = np.where(second, rewards[0], rewards[1])
            book.of_labels(cell, file.feedback, "chosen_reward", gold, labels.index, chosen)
            book.of_labels(cell, file.feedback, "rejected_reward", gold, labels.index, rejected)


def add_comparisons(book: Book, manifests: Sequence[Path]) -> None:
    """An LLM judge's scores and verdicts (paper A, Figure 3b)."""
    for manifest in manifests:
        artifact = load(manifest)
        run, judge, cell = parse_run(artifact.spec["run"]), str(artifact.spec["judge"]), _cell_of(artifact)
        path = artifact.path("comparisons.parquet")
        table = read_parquet(path, ["id", "order", "score_left", "score_right"])
        wins, _ = judgements.prompt_wins(table)
        scores = judgements.prompt_scores(table)
        first = judgements.first_shown_wins(table)
        missing = table.assign(missing=table["score_left"].isna()).groupby("id")["missing"].mean()
        longer = _length_differences(artifact).loc[wins["id"]]
        book.of_run(cell, run, "score", judge, scores["id"], scores["score_left"])
        book.of_run(cell, run, "win", judge, wins["id"], wins["win"])
        book.of_run(cell, run, "first_wins", judge, first.index, first)
        book.of_run(cell, run, "length_difference", judge, longer.index, longer)
        book.of_run(cell, run, "malformed", judge, missing.index, missing)


def _length_differences(comparison: Artifact) -> pd.Series:
    """Tokens of the left answer minus those of the right one, by prompt."""
    sides = []
    for side in ("left", "right"):
        generations = load(comparison.folder / comparison.manifest["parents"][side]["path"])
        table = read_parquet(generations.path("generations.parquet"), ["id", "tokens"])
        sides.append(table.set_index("id")["tokens"].astype(float))
    return sides[0] - sides[1]


def add_votes(book: Book, manifests: Sequence[Path], files: Sequence[LabelFile]) -> None:
    """An LLM judge's votes on pairs of a feedback's labels (paper A, Table 4 and section 4)."""
    labels = {(file.data, file.share, file.seed, file.feedback): file.frame for file in files}
    for manifest in manifests:
        artifact = load(manifest)
        feedback, judge, cell = artifact.spec["feedback"], str(artifact.spec["judge"]), _cell_of(artifact)
        if (*cell, feedback) not in labels:
            raise DataError(f"votes on labels of {feedback!r}, which were not given", where=manifest)
        votes = read_parquet(artifact.path("votes.parquet"), ["id", "vote", "order", "preferred"])
        shares, _ = judgements.vote_shares(votes)
        sides = judgements.label_votes(shares, labels[*cell, feedback])
        missing = votes.assign(missing=votes["preferred"].isna()).groupby("id")["missing"].mean()
        book.of_labels(cell, feedback, "consistency", judge, shares["id"], shares["consistency"])
        book.of_labels(cell, feedback, "votes", judge, shares["id"], shares["votes"])
        book.of_labels(cell, feedback, "vote", judge, sides["id"], sides["vote"])
        book.of_labels(cell, feedback, "malformed", judge, missing.index, missing)


def add_similarities(book: Book, manifests: Sequence[Path]) -> None:
    """Likeness of responses to what people chose (paper A, Figure 6)."""
    for manifest in manifests:
        artifact = load(manifest)
        path = artifact.path("similarity.parquet")
        table = read_parquet(path, ["id", "similarity"])
        check_unique(table["id"], path)
        run, encoder = parse_run(artifact.spec["run"]), str(artifact.spec["encoder_name"])
        book.of_run(_cell_of(artifact), run, "similarity", encoder, table["id"], table["similarity"])


def _rewards_by_cell(manifests: Sequence[Path]) -> dict[tuple[str, str, int], dict[str, pd.DataFrame]]:
    """(data, share, seed) -> gold model -> rewards with the columns 0 and 1, by example."""
    found: dict[tuple[str, str, int], dict[str, pd.DataFrame]] = {}
    for manifest in manifests:
        name = parse_cell(manifest, "responses")
        path = load(manifest).path("rewards.parquet")
        table = read_parquet(path, ["id", "response", "reward"])
        check_both_responses(table, path)
        wide = table.pivot(index="id", columns="response", values="reward")
        found.setdefault((name.data, name.share, name.seed), {})[name.rest[-1]] = wide
    return found


def _cell_of(artifact: Artifact) -> tuple[str, str, int]:
    """(data, share, seed) as the artifact's spec names them."""
    spec = artifact.spec
    return spec["data"], share_name(spec["share"]), int(spec["seed"])
