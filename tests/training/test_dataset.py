"""Data sets are read as they were written, and what is bad is named with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import SIZE, picture, square, write_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molmo_ros.training.dataset import (
    TASKS,
    DatasetError,
    DatasetWriter,
    main,
    problems,
    read_dataset,
)

MUG: dict[str, Any] = {"target": "the red mug", "points": [[50, 50]]}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "set", name="mine", world="tabletop") as writer:
        image = writer.add_image("one.png", picture())
        mask = writer.add_mask("one_1.png", square(3, 4))
        writer.add(
            image, "the mug", points=[[12.5, 50]], masks=[mask], tag="kind", question="Where is the mug?"
        )
        writer.add(image, "the cup", points=[])
        writer.add(image, "all the cans", points=[[1, 2], [3, 4.5]], task="count", count=2)
        writer.add(image, "an empty spot", masks=[mask])
    dataset = read_dataset(tmp_path / "set")
    assert dataset.name == "mine" and dataset.about["world"] == "tabletop"
    one, none, two, region = dataset.samples
    assert (one.task, one.points, one.tag, one.question) == (
        "point",
        ((12.5, 50.0),),
        "kind",
        "Where is the mug?",
    )
    assert (none.task, none.points, two.task, two.count, region.task) == ("absent", (), "count", 2, "region")
    assert [sample.line for sample in dataset.samples] == [1, 2, 3, 4]
    np.testing.assert_array_equal(one.read_image(), picture())
    np.testing.assert_array_equal(one.read_masks(SIZE)[0], square(3, 4))
    assert list(problems(dataset)) == []


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "JSON object"),
        ({"target": ""}, "target must be words"),
        ({"points": [[1, 2]]}, "target must be words"),
        ({**MUG, "image": None}, "image must be words"),
        ({**MUG, "label": 7}, "label must be words"),
        ({**MUG, "colour": "red"}, "unknown field colour"),
        ({**MUG, "points": [[50, 101]]}, "0 to 100"),
        ({**MUG, "points": [[50]]}, "pairs in percent"),
        ({**MUG, "points": [50, 50]}, "pairs in percent"),
        ({**MUG, "points": [[True, 1]]}, "pairs in percent"),
        ({**MUG, "points": "50 50"}, "pairs in percent"),
        ({**MUG, "points": [[10**400, 1]]}, "pairs in percent"),
        ("[" * 100_000, "not JSON"),
        ({**MUG, "image": "images/\ud800.png"}, "not found"),
        ('{"image": "images/a.png", "target": "a mug", "points": [[NaN, 1]]}', "pairs in percent"),
        ({**MUG, "masks": "masks/a.png"}, "list of file names"),
        ({**MUG, "masks": ["masks/none.png"]}, "masks/none.png not found"),
        ({**MUG, "masks": ["../a.png"]}, "without '..'"),
        ({**MUG, "image": "/etc/hostname"}, "file of the data set"),
        ({**MUG, "image": "images/b.png"}, "images/b.png not found"),
        ({**MUG, "image": "images/" + 300 * "b"}, "not found"),
        ({**MUG, "count": -1}, "whole number"),
        ({**MUG, "count": True}, "whole number"),
        ({**MUG, "task": "pose"}, "no task is called 'pose'"),
        ({**MUG, "task": "absent"}, "absent has no points"),
        ({"target": "the mug", "points": [], "task": "point"}, "no points at all mean absent"),
        ({"target": "the mug"}, "a region needs a mask"),
        ({"target": "the mugs", "points": [[1, 1], [2, 2]], "task": "point"}, "several are a 'set'"),
        ({"target": "the mugs", "points": [[1, 1], [2, 2]], "masks": ["masks/a.png"]}, "2 points with 1 masks"),
        ({"target": "the mugs", "points": [[1, 1], [2, 2]], "count": 3}, "count 3 for 2 targets"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_file_line_and_reason(
    tmp_path: Path, row: dict[str, Any] | str, says: str
) -> None:
    folder = write_set(tmp_path / "set", MUG, row, masks={"a.png": square(1, 1)})
    with pytest.raises(DatasetError) as caught:
        read_dataset(folder)
    assert str(caught.value).startswith(f"{folder / 'questions.jsonl'}:2: ")
    assert says in str(caught.value) and str(caught.value).encode()
    skipping = read_dataset(folder, skip_bad=True)
    assert len(skipping.samples) == 1
    assert [error.line for error in skipping.skipped] == [2]


def test_empty_lines_count_but_are_not_bad(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path / "set", MUG, "", MUG))
    assert [sample.line for sample in dataset.samples] == [1, 3]


@given(line=st.one_of(st.text(), st.binary().map(lambda b: b.decode("latin-1"))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_no_line_breaks_the_reader_in_another_way(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "set"
    if not folder.exists():
        write_set(folder, MUG)
    good = json.dumps({"image": "images/a.png"} | MUG)
    (folder / "questions.jsonl").write_bytes(f"{good}\n{line}\n".encode("utf-8", "surrogatepass"))
    dataset = read_dataset(folder, skip_bad=True)
    assert len(dataset.samples) == 1


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(
    field=st.sampled_from(["image", "target", "points", "masks", "count", "task", "tag", "label"]),
    value=json_values,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_value_of_any_field_is_taken_or_named(tmp_path: Path, field: str, value: Any) -> None:
    folder = tmp_path / "set"
    if not folder.exists():
        write_set(folder, MUG)
    rows = [{"image": "images/a.png"} | MUG, {"image": "images/a.png"} | MUG | {field: value}]
    (folder / "questions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    dataset = read_dataset(folder, skip_bad=True)
    assert len(dataset.samples) + len(dataset.skipped) == 2
    assert all(sample.task in TASKS for sample in dataset.samples)


def test_a_folder_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"docs/datasets\.md"):
        read_dataset(tmp_path)
    with pytest.raises(DatasetError, match="no question that can be used"):
        read_dataset(write_set(tmp_path / "set", "{"), skip_bad=True)


def test_broken_about_is_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", MUG)
    (folder / "about.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"about\.json: must be one JSON object"):
        read_dataset(folder)


def test_a_corrupt_picture_and_a_mask_of_another_size_are_named_with_their_line(tmp_path: Path) -> None:
    row = {**MUG, "masks": ["masks/small.png"]}
    folder = write_set(tmp_path / "set", MUG, row, masks={"small.png": np.ones((4, 4), bool)})
    (sample, masked) = read_dataset(folder).samples
    with pytest.raises(DatasetError, match=r"questions\.jsonl:2: mask masks/small\.png is \(4, 4\)"):
        masked.read_masks(SIZE)
    whole = (folder / "images" / "a.png").read_bytes()
    for broken in (b"", b"no picture", whole[: len(whole) // 2], whole[:30] + b"\0" * 40 + whole[70:]):
        (folder / "images" / "a.png").write_bytes(broken)
        with pytest.raises(DatasetError, match=r"questions\.jsonl:1: images/a\.png cannot be read"):
            sample.read_image()
    assert [error.line for error in problems(read_dataset(folder))] == [1]  # named once


def test_a_set_that_was_not_finished_is_none(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "set")
    writer.add(writer.add_image("a.png", picture()), **MUG)
    writer.__exit__(RuntimeError, None, None)  # as a `with` block that fails
    with pytest.raises(DatasetError, match="not found"):
        read_dataset(tmp_path / "set")


def test_a_writer_overwrites_nothing_and_takes_nothing_bad(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", MUG)
    with pytest.raises(DatasetError, match="exists already"):
        DatasetWriter(folder)
    with DatasetWriter(tmp_path / "new") as writer:
        image = writer.add_image("a.png", picture())
        with pytest.raises(DatasetError, match="0 to 100"):
            writer.add(image, "a mug", points=[[200, 0]])
        writer.add(image, "a mug", points=[[20, 0]])
    assert len(read_dataset(tmp_path / "new").samples) == 1


def test_check_names_everything_that_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_set(tmp_path / "set", MUG, "{", MUG)
    assert main(["check", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "questions.jsonl:2: is not JSON" in said
    assert "3 questions, 1 that cannot be used" in said
    good = write_set(tmp_path / "good", MUG)
    assert main(["check", str(good)]) == 0
    assert main(["check", str(tmp_path / "nowhere")]) == 1
