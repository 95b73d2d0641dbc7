"""How the arms of a transfer are drawn: one colour and mark per role in all figures of paper B."""

from __future__ import annotations

from collections.abc import Sequence

from w2s.plotting import Look
from w2s.transfer_results import role

# Okabe-Ito colours; marks differ, so that a grey copy tells the roles apart.
LOOKS = {
    "naive": Look("#CC79A7", "", "o"),
    "icl": Look("#E69F00", "////", "D"),
    "infer": Look("#0072B2", "xx", "s"),
    "improve": Look("#009E73", "....", "^"),
    "own": Look("#56B4E9", "--", "v"),
    "doubled": Look("#8A4B00", "\\\\", "P"),
    "bootstrapped": Look("#6E6E6E", "++", "X"),
    "confidence": Look("#F0E442", "**", "h"),
    "timed": Look("#D55E00", "||", "d"),
    "gold": Look("#3D3D3D", "oo", "*"),
}
SPARE = (
    *(Look("#AA4499", "//", "p"), Look("#882255", "xxxx", "<"), Look("#117733", "---", ">")),
    *(Look("#999933", "O", "8"), Look("#332288", "***", "H"), Look("#88CCEE", "..", "d")),
)


def looks(series: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Look]:
    """Look per (arm, recipe): the first of a role has its look, others a spare one, in the order given."""
    found: dict[tuple[str, str], Look] = {}
    for pair in dict.fromkeys(series):
        own = LOOKS.get(role(pair[0]))
        free = [look for look in SPARE if look not in found.values()] or list(SPARE)
        found[pair] = own if own is not None and own not in found.values() else free[0]
    return found
