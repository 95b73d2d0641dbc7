"""What the trainings' tests train: a tiny model, three dozen pairs, labels and reference scores, as artifacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tiny import as_artifact, write_label_file

WORDS = [
    "cats",
    "dogs",
    "birds",
    "bread",
    "water",
    "salt",
    "fish",
    "meat",
    "road",
    "hen",
    "joke",
    "sorry",
    "flour",
    "yeast",
    "wait",
    "bake",
]


def pairs(number: int) -> list[tuple[str, str, str]]:
    """Prompts with a longer and a shorter response, all different."""
    found = []
    for row in range(number):
        first, second = WORDS[row % 16], WORDS[(row * 7 + 3) % 16]
        prompt = f"\n\nHuman: Tell me about {first} {row}.\n\nAssistant:"
        found.append((prompt, f" {first} and {second}" * (1 + row % 3) + ".", f" {second} {row}."))
    return found


@dataclass
class Inputs:
    """Manifests."""

    model: Path
    examples: Path
    split: Path
    labels: Path
    scores: Path

    def arguments(self, output: Path, *more: object, scores: bool = False) -> list[str]:
        """Command line of a training with small defaults; later options win."""
        words: list[object] = ["--model", self.model, "--examples", self.examples, "--split", self.split]
        words += ["--labels", self.labels, "--output", output, "--part", "unlabelled", "--seed", 7]
        words += ["--learning-rate", 1e-3, "--batch-size", 8, "--device", "cpu"]
        if scores:
            words += ["--reference-scores", self.scores, "--beta", 0.1]
        return [str(word) for word in [*words, *more]]


def make(
    folder: Path, model: Path, make_examples: Callable[..., tuple[Path, Path]], number: int = 36
) -> Inputs:
    """Write the artifacts under ``folder``; the last four pairs are the test part."""
    examples, split = make_examples(pairs(number), test=4)
    labels = as_artifact(folder / "labels", lambda target: write_labels(examples, split, target))
    scores = score(folder / "scores", model, examples, split)
    return Inputs(model / "manifest.json", examples, split, labels, scores)


def write_labels(examples: Path, split: Path, target: Path) -> None:
    """Labels of the unlabelled part: response 0 and 1 in turn."""
    from w2s.tables import read_part

    ids = read_part(examples, split, "unlabelled")["id"]
    labels = pd.DataFrame({"id": ids, "label": pd.Series(range(len(ids)), ids.index).mod(2).astype("int8")})
    labels["margin"] = labels["label"] - 0.5
    labels["probability"] = labels["label"].astype(float)
    labels["source"] = "test"
    write_label_file(target, labels)


def subset(inputs: Inputs, folder: Path, number: int) -> Path:
    """The inputs' labels of the first ``number`` examples by id; the others are left out."""
    from w2s.tables import read_labels

    labels = read_labels(inputs.labels)
    left_out = dict.fromkeys(labels["id"][number:], "left_out")
    return as_artifact(folder, lambda target: write_label_file(target, labels[:number], left_out))


def score(folder: Path, model: Path, examples: Path, split: Path) -> Path:
    """Reference scores of the unlabelled part under ``model``, by the stage that makes them in the workflow."""
    import score_responses

    words = ["--model", model / "manifest.json", "--examples", examples, "--split", split]
    words += ["--output", folder / "manifest.json", "--part", "unlabelled", "--precision", "float32"]
    score_responses.main([str(word) for word in words])
    return folder / "manifest.json"


def weights(manifest: Path) -> dict[str, object]:
    """Tensors of a saved model by name."""
    from safetensors.torch import load_file

    return load_file(str(manifest.parent / "model.safetensors"))
