"""Prints what rule 1 of demo.yaml looks at: python presets/development/teachers.py results/demo-development world-t2

One line per feedback and seed: the labels' agreement with the gold labels (equal gold rewards left out) and the
length gap, the mean number of words of the preferred response minus that of the other one.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from w2s.tables import join_labels, read_examples, read_labels


def main(root: Path, data: str) -> None:
    """Read every label file of the unlabelled part of ``data`` under ``root``."""
    filtered = root / "filtered" / data / "manifest.json"
    examples = read_examples(filtered)
    gold = read_labels(filtered, "gold.parquet").set_index("id")
    print(f"{'feedback':24} {'seed':9} {'pairs':>5} {'agreement':>9} {'length gap':>10}")
    for manifest in sorted((root / "labels" / data).glob("*/seed-*/unlabelled/*/manifest.json")):
        labels = read_labels(manifest)
        pairs = join_labels(examples[examples["id"].isin(labels["id"])], labels)
        truth = gold.loc[pairs["id"]].reset_index()
        decided = truth["margin"] != 0
        agreement = (pairs["label"] == truth["label"])[decided].mean()
        words = [pairs[side].map(lambda text: len(text.split())) for side in ("response_0", "response_1")]
        gap = ((words[1] - words[0]) * (2 * pairs["label"].astype(int) - 1)).mean()
        seed, feedback = manifest.parts[-4], manifest.parts[-2]
        print(f"{feedback:24} {seed:9} {decided.sum():5} {agreement:9.3f} {gap:+10.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
