"""Write a model card into the folder of each trained model behind some tables: teachers, students, tuned students.

A card (``README.md``, in the form of the Hugging Face hub) says what the model is, the data with their counts, whose labels
it learnt from and how many of those agree with people's, the whole recipe, what the training counted and took, its scores
with intervals, what it is not, how to load and verify it, and what to cite. Scores are means over prompts of this one
model, beside the mean over all seeds. docs/provenance.md tells more.

Inputs:  tables, from which all models behind them are found; CITATION.cff; the card's Jinja template.
Outputs: the cards, and an index of them, a row per model. A card is no part of the model's artifact: the artifact's manifest
does not list it, and whoever trains the model again removes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from w2s import cli
from w2s.artifact import CARD, write_atomically


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", nargs="*", help="manifests of the tables of experiments and transfers")
    parser.input("--citation", help="CITATION.cff of the repository")
    parser.input("--template", help="the card's Jinja template (report/model_card.md)")
    parser.output("--output", help="the index, .csv, in the folder of the run's results")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the cards, then the index."""
    args = arguments().parse_args(argv)

    import pandas as pd
    from w2s import cards
    from w2s.citation import read_citation
    from w2s.tables import write_csv

    family, citation, root = (
        cards.Family(args.tables),
        read_citation(args.citation),
        args.output.resolve().parent,
    )
    scores = family.scores()
    rows = []
    for model in family.models():
        own = scores.get(model.manifest_path, [])
        front, values = cards.card(family, model, own, citation, root)
        text = cards.render(args.template, front, values)
        sha256 = write(text, model.folder / CARD)
        rows.append([values["name"], values["stage"], values["seed"], model.digest, len(own), sha256])
    columns = ["model", "stage", "seed", "digest", "scores", "card_sha256"]
    write_csv(pd.DataFrame(rows, columns=columns), args.output)


def write(text: str, path: Path) -> str:
    """Write a card; returns its SHA-256."""
    content = text.encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    cli.run(main)
