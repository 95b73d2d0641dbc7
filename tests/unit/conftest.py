"""Fixtures of the unit tests, as artifacts: a tiny tokenizer, tiny random models, a few examples."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
import training_inputs
from tiny import PAIRS, TEXTS, as_artifact, example_rows, tiny_config, train_bpe


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A handler that a test leaves behind is inherited by the processes of those that come after it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def quick_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who makes hundreds of artifacts: each would ask git for the commit."""
    monkeypatch.setattr("w2s.artifact.git_state", lambda: None)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder (artifact) of a small byte-level BPE tokenizer: BOS and EOS </s> (2), pad 1, 256 positions."""
    from w2s.encoding import Encoding

    folder = tmp_path_factory.mktemp("tokenizers") / "tiny"
    encoding = Encoding(train_bpe(TEXTS), bos_id=2, eos_id=2, pad_id=1, positions=256)  # type: ignore[arg-type]
    as_artifact(folder, encoding.save)
    return folder


@pytest.fixture(scope="session")
def make_model(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_model(seed, kind="opt", classifier=False, positions=256)`` -> folder of a tiny model."""

    def make(seed: int = 0, kind: str = "opt", classifier: bool = False, positions: int = 256) -> Path:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
        from w2s.encoding import Encoding
        from w2s.models import save_model

        config = tiny_config(kind, Encoding.load(tiny_tokenizer).vocabulary_size, positions)
        torch.manual_seed(seed)
        auto = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
        if classifier:
            config.num_labels = 1
        model = auto.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():  # the usual 0.02 makes all tokens about equally likely
                if parameter.ndim > 1:
                    parameter.mul_(10)
        folder = tmp_path_factory.mktemp("models") / f"{kind}-{seed}"

        def fill(target: Path) -> None:
            save_model(model, target, tiny_tokenizer)
            encoding = Encoding.load(target)
            encoding.positions = positions
            encoding.save(target)

        as_artifact(folder, fill)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(make_model: Callable[..., Path]) -> Path:
    """Folder (artifact) of a tiny random OPT model in the hub's format, tokenizer files beside it."""
    return make_model(0)


@pytest.fixture(scope="session")
def tiny_classifier(make_model: Callable[..., Path]) -> Path:
    """Folder (artifact) of a tiny random OPT reward model."""
    return make_model(0, classifier=True)


@pytest.fixture(scope="session")
def make_examples(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """``make_examples(pairs, test=1)`` -> (examples manifest, split manifest): all but the last unlabelled.

    Human labels prefer response 0, exact labels response 1.
    """
    from w2s.tables import write_parquet

    def make(pairs: Sequence[tuple[str, str, str]] = PAIRS, test: int = 1) -> tuple[Path, Path]:
        examples = example_rows(pairs)
        folder = tmp_path_factory.mktemp("examples")

        def fill(target: Path) -> None:
            write_parquet(examples, target / "examples.parquet")
            for name, label in (("human", 0), ("gold", 1)):
                labels = pd.DataFrame(
                    {"id": examples["id"], "label": pd.Series(label, examples.index, "int8")}
                )
                labels["margin"] = float("nan") if name == "human" else 1.5
                labels["probability"] = float(label)
                labels["source"] = name
                write_parquet(labels, target / f"{name}.parquet")

        parts = ["unlabelled"] * (len(examples) - test) + ["test"] * test
        assignment = pd.DataFrame({"id": examples["id"], "part": parts})
        return (
            as_artifact(folder / "examples", fill),
            as_artifact(
                folder / "split", lambda target: write_parquet(assignment, target / "assignment.parquet")
            ),
        )

    return make


@pytest.fixture(scope="module")
def inputs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    make_examples: Callable[..., tuple[Path, Path]],
) -> training_inputs.Inputs:
    """What the trainings' tests train on; of each file of tests its own."""
    return training_inputs.make(tmp_path_factory.mktemp("inputs"), tiny_model, make_examples)
