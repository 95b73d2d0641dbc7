"""Tables by example id: every join is checked, every problem names file, row and id."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from w2s.artifact import Artifact
from w2s.errors import ArtifactError, DataError, JoinError
from w2s.tables import (
    EXAMPLE_COLUMNS,
    LABEL_COLUMNS,
    check_same_ids,
    join_labels,
    read_dropped,
    read_examples,
    read_labelled,
    read_labels,
    read_parquet,
    read_part,
    write_csv,
    write_parquet,
)


def examples(*ids: str) -> pd.DataFrame:
    columns = {name: [f"{name} {number}" for number in ids] for name in EXAMPLE_COLUMNS}
    return pd.DataFrame(columns | {"id": list(ids)})


def labels(*ids: str, values: list[object] | None = None) -> pd.DataFrame:
    frame = pd.DataFrame({"id": list(ids), "label": values or [n % 2 for n in range(len(ids))]})
    return frame.assign(margin=float("nan"), probability=float("nan"), source="test")


def as_artifact(folder: Path, **tables: pd.DataFrame) -> Path:
    with Artifact.create(folder / "manifest.json", spec={}, parents={}, script=__file__) as artifact:
        for name, frame in tables.items():
            write_parquet(frame, artifact.path(f"{name}.parquet"))
    return folder / "manifest.json"


def test_join_keeps_the_order_of_the_examples_and_every_value() -> None:
    joined = join_labels(examples("c", "a", "b"), labels("a", "b", "c"))
    assert joined["id"].tolist() == ["c", "a", "b"]
    assert joined["label"].tolist() == [0, 0, 1]
    assert joined["response_1"].tolist() == ["response_1 c", "response_1 a", "response_1 b"]
    assert set(LABEL_COLUMNS) | set(EXAMPLE_COLUMNS) == set(joined.columns)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ("abc", "ab", "1 ids of examples are missing in labels: c"),
        ("ab", "abd", "1 ids of labels are not in examples: d"),
        ("abc", "abd", "examples are missing in labels: c; 1 ids of labels are not in examples: d"),
        ("aabc", "abc", "1 duplicate ids: a"),
        ("abc", "abbcc", "2 duplicate ids: b, c"),
        ("abcdef", "a", r"5 ids of examples are missing in labels: b, c, d, \.\.\."),
    ],
)
def test_a_join_that_is_not_one_to_one_names_the_ids(left: str, right: str, message: str) -> None:
    with pytest.raises(JoinError, match=message):
        join_labels(examples(*left), labels(*right))


def test_same_ids_in_another_order_are_the_same() -> None:
    check_same_ids(["a", "b"], ["b", "a"], "left", "right")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0, 1, None], "nan"),
        ([0, 2, 1], "2"),
        ([0, 1, -1], "-1"),
        ([0.0, 1.0, 0.5], "0.5"),
        (["0", "1", "1"], "'0'"),
    ],
)
def test_a_wrong_label_is_named_with_its_row(tmp_path: Path, values: list[object], shown: str) -> None:
    manifest = as_artifact(tmp_path / "labels", labels=labels("a", "b", "c", values=values))
    with pytest.raises(DataError) as error:
        read_labels(manifest)
    text = str(error.value)
    assert text.startswith(f"label {shown} is neither 0 nor 1")
    assert "labels.parquet, row" in text
    assert ", id " in text


def test_a_nan_label_names_row_and_id(tmp_path: Path) -> None:
    manifest = as_artifact(tmp_path / "labels", labels=labels("a", "b", "c", values=[0, None, 1]))
    with pytest.raises(DataError, match=r"(?s)nan.*1 such rows.*labels\.parquet, row 1, id b"):
        read_labels(manifest)


def test_duplicate_ids_in_files_are_named(tmp_path: Path) -> None:
    manifest = as_artifact(tmp_path / "a", examples=examples("a", "b", "b"), labels=labels("a", "a"))
    with pytest.raises(JoinError, match=r"(?s)duplicate ids: b.*examples\.parquet"):
        read_examples(manifest)
    with pytest.raises(JoinError, match=r"(?s)duplicate ids: a.*labels\.parquet"):
        read_labels(manifest)


@pytest.mark.parametrize("column", LABEL_COLUMNS)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    manifest = as_artifact(tmp_path / "a", labels=labels("a").drop(columns=column))
    with pytest.raises(
        DataError, match=rf"(?s)column {column} missing.*labels\.parquet.*{', '.join(LABEL_COLUMNS)}"
    ):
        read_labels(manifest)


def test_several_missing_columns_are_all_named(tmp_path: Path) -> None:
    write_parquet(examples("a")[["id", "prompt"]], tmp_path / "x.parquet")
    with pytest.raises(DataError, match="columns response_0, response_1 missing"):
        read_parquet(tmp_path / "x.parquet", ["id", "response_0", "response_1"])


@pytest.mark.parametrize(
    "content", [b"", b"id,prompt\na,b\n", b"PAR1 truncated"], ids=["empty", "csv", "truncated"]
)
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"(?s)not a readable parquet file.*x\.parquet"):
        read_parquet(path, ["id"])


def test_a_truncated_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(examples(*map(str, range(500))), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"x\.parquet"):
        read_parquet(path, ["id"])


def test_another_label_file_of_the_artifact(tmp_path: Path) -> None:
    manifest = as_artifact(tmp_path / "a", human=labels("a", "b"))
    assert read_labels(manifest, "human.parquet")["label"].tolist() == [0, 1]
    with pytest.raises(ArtifactError, match="no file 'labels.parquet'"):
        read_labels(manifest)


def test_a_part_is_sorted_and_complete(tmp_path: Path) -> None:
    all_examples = as_artifact(tmp_path / "a", examples=examples("d", "b", "a", "c"))
    assignment = pd.DataFrame(
        {"id": ["a", "b", "c", "d"], "part": ["test", "labelled", "unlabelled", "labelled"]}
    )
    split = as_artifact(tmp_path / "s", assignment=assignment)
    assert read_part(all_examples, split, "labelled")["id"].tolist() == ["b", "d"]
    assert read_part(all_examples, split, "test")["prompt"].tolist() == ["prompt a"]
    assert read_part(all_examples, split, "train")["id"].tolist() == ["b", "c", "d"]
    with pytest.raises(DataError, match="(?s)'dev'.*labelled, unlabelled, train, test"):
        read_part(all_examples, split, "dev")


class Labelled:
    """Five examples, of which a label file labels some and leaves out others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.examples = as_artifact(folder / "a", examples=examples(*"dbace"))
        parts = ["unlabelled", "unlabelled", "unlabelled", "labelled", "test"]
        assignment = pd.DataFrame({"id": list("abcde"), "part": parts})
        self.split = as_artifact(folder / "s", assignment=assignment)

    def read(self, kept: str, dropped: str, part: str = "unlabelled") -> tuple[pd.DataFrame, pd.Series]:
        reasons = pd.DataFrame({"id": list(dropped), "reason": "why"}, dtype=str)
        manifest = as_artifact(self.folder / f"{kept}-{dropped}", labels=labels(*kept), dropped=reasons)
        return read_labelled(self.examples, self.split, part, manifest)


@pytest.fixture
def labelled(tmp_path: Path) -> Labelled:
    return Labelled(tmp_path)


def test_a_label_file_may_leave_examples_out(labelled: Labelled) -> None:
    kept, part = labelled.read("ca", "b")
    assert kept["id"].tolist() == ["a", "c"]
    assert kept["label"].tolist() == [1, 0]
    assert kept["prompt"].tolist() == ["prompt a", "prompt c"]
    assert part.tolist() == ["a", "b", "c"]
    everything, part = labelled.read("dbca", "", part="train")
    assert everything["id"].tolist() == part.tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("kept", "dropped", "message"),
    [
        ("ab", "", "1 ids of part unlabelled are missing in the labels .*: c"),
        ("a", "b", "1 ids of part unlabelled are missing in the labels .*: c"),
        ("abcd", "", "1 ids of the labels .* are not in part unlabelled: d"),
        ("abc", "e", "1 ids of the labels .* are not in part unlabelled: e"),
        ("aabc", "", "1 duplicate ids: a"),
        ("ab", "cc", "1 duplicate ids: c"),
        ("abc", "b", "an example is both labelled and left out"),
    ],
)
def test_labels_that_are_not_of_the_part_are_refused(
    labelled: Labelled, kept: str, dropped: str, message: str
) -> None:
    with pytest.raises(JoinError, match=message):
        labelled.read(kept, dropped)


def test_a_label_file_says_what_it_leaves_out(labelled: Labelled) -> None:
    only = as_artifact(labelled.folder / "only", labels=labels("a", "b", "c"))
    with pytest.raises(ArtifactError, match="no file 'dropped.parquet'"):
        read_labelled(labelled.examples, labelled.split, "unlabelled", only)
    reasons = pd.DataFrame({"id": ["c"]})
    nameless = as_artifact(labelled.folder / "n", labels=labels("a", "b"), dropped=reasons)
    with pytest.raises(DataError, match=r"(?s)column reason missing.*dropped\.parquet"):
        read_dropped(nameless)


def test_a_split_of_other_examples_is_refused(tmp_path: Path) -> None:
    all_examples = as_artifact(tmp_path / "a", examples=examples("a"))
    split = as_artifact(tmp_path / "s", assignment=pd.DataFrame({"id": ["a", "z"], "part": ["test", "test"]}))
    with pytest.raises(JoinError, match="1 ids of the split are not among the examples: z"):
        read_part(all_examples, split, "test")


def test_tables_read_back_as_written(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [0.1, 1e-7, 1 / 3], "text": ["a,b", 'say "é"', "line\nbreak"]})
    write_csv(frame, tmp_path / "x.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "x.csv"), frame)
    write_parquet(frame, tmp_path / "x.parquet")
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "x.parquet", ["x"]), frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.parquet"]
