"""Answers that people stood for become questions with the truth; nothing else does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bags import (
    COLOR,
    NODE,
    SIZE,
    click,
    compressed_image,
    picture,
    raw_image,
    targets,
    write_bag,
)
from rosbags.rosbag2 import StoragePlugin

from molmo_ros.cli import main
from molmo_ros.training.collect import BagError, Topics, collect_bag
from molmo_ros.training.dataset import DatasetError, problems, read_dataset

FIRST, SECOND, THIRD = (10**9 * 1_700_000_000 + n for n in (5, 6, 7))
TOPICS = Topics.of(NODE, COLOR)


def percent(u: float, v: float) -> tuple[float, float]:
    return round(100 * u / SIZE[0], 3), round(100 * v / SIZE[1], 3)


EVENTS = [
    ("image", raw_image(FIRST, picture(1))),
    ("answer", targets(FIRST, "the red mug", (10.0, 20.0))),
    ("review", targets(FIRST, "the red mug", (10.0, 20.0))),
    ("answer", targets(FIRST, "all the cups", (1.0, 2.0))),
    ("image", raw_image(SECOND, picture(2))),
    ("review", targets(FIRST, "all the cups", (3.0, 4.0), (5.0, 6.0))),
    ("answer", targets(SECOND, "the bowl", (30.0, 10.0))),
    ("click", click(8.0, 9.0)),
    ("answer", targets(SECOND, "the can", (30.0, 11.0))),
    ("review", targets(SECOND, "the dog")),
    ("image", raw_image(THIRD, picture(3))),
]


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_reviews_and_clicks_are_the_truth(plugin: StoragePlugin, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", EVENTS, plugin)
    written, left_out = collect_bag(bag, tmp_path / "set", TOPICS)
    assert written == 4 and left_out == ["1 answers that nobody confirmed or corrected"]
    dataset = read_dataset(tmp_path / "set")
    assert not list(problems(dataset))
    found = {s.target: s for s in dataset.samples}
    assert {t: (s.task, s.tag) for t, s in found.items()} == {
        "the red mug": ("point", "confirmed"),
        "all the cups": ("set", "corrected"),
        "the bowl": ("point", "corrected"),
        "the dog": ("absent", "seen"),
    }
    assert found["the red mug"].points == (percent(10, 20),)
    assert found["all the cups"].points == (percent(3, 4), percent(5, 6))
    assert found["the bowl"].points == (percent(8, 9),)
    np.testing.assert_array_equal(found["the red mug"].read_image(), picture(1))
    np.testing.assert_array_equal(found["the dog"].read_image(), picture(2))
    assert len(list((tmp_path / "set" / "images").iterdir())) == 2


def test_a_review_outdoes_clicks_and_earlier_reviews(tmp_path: Path) -> None:
    events = [
        ("image", raw_image(FIRST, picture(1))),
        ("answer", targets(FIRST, "the mug", (10.0, 20.0))),
        ("review", targets(FIRST, "the mug", (1.0, 1.0))),
        ("review", targets(FIRST, "the mug", (2.0, 2.0))),
        ("click", click(3.0, 3.0)),
    ]
    assert collect_bag(write_bag(tmp_path / "bag", events), tmp_path / "set", TOPICS) == (1, [])
    (sample,) = read_dataset(tmp_path / "set").samples
    assert sample.points == (percent(2, 2),)


def test_everything_counts_only_when_asked(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", EVENTS[:2])
    with pytest.raises(BagError, match=r"though 1 answers; see --all"):
        collect_bag(bag, tmp_path / "set", TOPICS)
    assert collect_bag(bag, tmp_path / "set", TOPICS, everything=True) == (1, [])
    (sample,) = read_dataset(tmp_path / "set").samples
    assert sample.tag == "confirmed"


@pytest.mark.parametrize(
    "image",
    [
        raw_image(FIRST, picture(1), "bgr8"),
        raw_image(FIRST, picture(1), padding=7),
        compressed_image(FIRST, picture(1)),
    ],
    ids=["bgr8", "padded rows", "png"],
)
def test_pictures_come_out_as_the_camera_saw_them(image: object, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [("image", image), *EVENTS[1:3]])
    collect_bag(bag, tmp_path / "set", TOPICS)
    (sample,) = read_dataset(tmp_path / "set").samples
    np.testing.assert_array_equal(sample.read_image(), picture(1))


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    broken = raw_image(SECOND, picture(2))
    broken.data = broken.data[:50]
    events = [
        ("image", raw_image(FIRST, picture(1))),
        ("image", broken),
        ("review", targets(FIRST, "the mug", (10.0, 20.0))),
        ("review", targets(FIRST, "the cup", (40.0, 20.0))),
        ("review", targets(FIRST, "the can", (float("nan"), 20.0))),
        ("review", targets(FIRST, " . ", (1.0, 1.0))),
        ("review", targets(SECOND, "the box", (1.0, 1.0))),
        ("review", targets(THIRD, "the bowl", (1.0, 1.0))),
    ]
    written, left_out = collect_bag(write_bag(tmp_path / "bag", events), tmp_path / "set", TOPICS)
    assert written == 1
    reasons = dict(line.split(f" at {FIRST // 10**9}", 1) for line in left_out)
    assert "lies outside of the picture of 40 x 30" in reasons["'the cup'"]
    assert "(nan, 20) lies outside" in reasons["'the can'"]
    assert "target is empty" in reasons["' . '"]
    assert "cannot be read" in reasons["'the box'"]
    assert "its picture is not there" in reasons["'the bowl'"]


@pytest.mark.parametrize(
    ("topics", "says"),
    [
        (Topics.of(NODE, "/other"), f"no messages on /other; topics with pictures: {COLOR}"),
        (Topics.of("/other", COLOR), f"topics with answers: {NODE}/reviewed_targets, {NODE}/targets"),
        (Topics.of(NODE, f"{NODE}/targets"), "has molmo_ros_interfaces/msg/TargetArray"),
    ],
)
def test_wrong_topics_are_named_with_those_that_there_are(topics: Topics, says: str, tmp_path: Path) -> None:
    with pytest.raises(BagError, match=says):
        collect_bag(write_bag(tmp_path / "bag", EVENTS), tmp_path / "set", topics)
    assert not (tmp_path / "set").exists()


def test_a_bag_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="cannot be read"):
        collect_bag(tmp_path / "gone", tmp_path / "set", TOPICS)
    (tmp_path / "bag.mcap").write_bytes(b"broken")
    with pytest.raises(BagError, match="cannot be read"):
        collect_bag(tmp_path / "bag.mcap", tmp_path / "set", TOPICS)


def test_a_data_set_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", EVENTS)
    collect_bag(bag, tmp_path / "set", TOPICS)
    with pytest.raises(DatasetError, match="exists already"):
        collect_bag(bag, tmp_path / "set", TOPICS)


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "bag", EVENTS)
    assert main(["collect", str(bag), "--out", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out
    assert "left out: 1 answers" in said and "4 questions in" in said
    assert main(["collect", str(bag), "--out", str(tmp_path / "set")]) == 2
    assert "exists already" in capsys.readouterr().err
