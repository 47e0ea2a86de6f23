"""Other people's layouts become data sets with the same truth in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import SIZE, picture, square
from PIL import Image

from molmo_ros.training.convert import convert_pixmo, convert_point_bench, convert_where2place, place_of
from molmo_ros.training.dataset import DatasetError, problems, read_dataset
from molmo_ros.training.dataset_commands import run

SHA = "ab" * 32


def save(path: Path, mask: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture() if mask is None else np.where(mask, 255, 0).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def pixmo_rows() -> list[dict[str, Any]]:
    link = "https://example.org/pictures/two%20cups.jpg?size=large"
    cups = [{"x": 10.0, "y": 40.0}, {"x": 80.0, "y": 45.0}]
    masks = [square(2, 10).tolist(), square(30, 10).tolist()]
    return [
        {"image_url": link, "image_sha256": SHA, "label": "Cups", "points": cups, "masks": masks},
        {"image_url": link, "image_sha256": SHA, "label": "red  mug", "points": cups[:1]},
        {"image_url": link, "image_sha256": SHA, "label": "dog", "points": []},
        {
            "image_url": link,
            "image_sha256": "",
            "label": "cups",
            "points": cups,
            "collection_method": "counting",
        },
    ]


def test_pixmo_rows_keep_their_points_masks_and_absences(tmp_path: Path) -> None:
    save(tmp_path / "pictures" / f"{SHA}.png")
    save(tmp_path / "pictures" / "two cups.jpg")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in pixmo_rows()))
    assert convert_pixmo(rows, tmp_path / "pictures", tmp_path / "set") == []
    dataset = read_dataset(tmp_path / "set")
    assert list(problems(dataset)) == []
    assert [s.task for s in dataset.samples] == ["set", "point", "absent", "count"]
    assert [s.target for s in dataset.samples] == ["cups", "red mug", "dog", "cups"]
    assert dataset.samples[0].points == ((10.0, 40.0), (80.0, 45.0))
    np.testing.assert_array_equal(dataset.samples[0].read_masks(SIZE)[1], square(30, 10))
    assert dataset.samples[3].image.endswith(".jpg")  # found by its link
    assert len(list((tmp_path / "set" / "images").iterdir())) == 2


def test_pixmo_count_has_points_in_pixels_and_a_json_list_is_read_too(tmp_path: Path) -> None:
    save(tmp_path / "pictures" / f"{SHA}.png")
    row = {**pixmo_rows()[1], "points": [{"x": 20, "y": 15}]}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    convert_pixmo(tmp_path / "rows.json", tmp_path / "pictures", tmp_path / "set", in_pixels=True)
    assert read_dataset(tmp_path / "set").samples[0].points == ((50.0, 50.0),)


def test_bad_rows_are_named_by_line_or_left_out_and_listed(tmp_path: Path) -> None:
    save(tmp_path / "pictures" / f"{SHA}.png")
    good = pixmo_rows()[1]
    no_picture = {**good, "image_sha256": "", "image_url": "https://example.org/lost.jpg"}
    rows = [good, no_picture, {"image_sha256": SHA}, {**good, "points": [{"x": 300, "y": 1}]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(DatasetError, match=r"rows\.jsonl:2: no picture 'lost\.jpg'"):
        convert_pixmo(tmp_path / "rows.jsonl", tmp_path / "pictures", tmp_path / "never")
    bad = convert_pixmo(tmp_path / "rows.jsonl", tmp_path / "pictures", tmp_path / "set", skip_bad=True)
    assert [error.line for error in bad] == [2, 3, 4]
    assert "points" in str(bad[1]) and "0 to 100" in str(bad[2])
    assert len(read_dataset(tmp_path / "set").samples) == 1


def test_lines_that_are_no_rows_are_named_too(tmp_path: Path) -> None:
    save(tmp_path / "pictures" / f"{SHA}.png")
    (tmp_path / "pictures" / "broken.png").write_bytes(
        (tmp_path / "pictures" / f"{SHA}.png").read_bytes()[:60]
    )
    broken = {**pixmo_rows()[1], "image_sha256": "broken"}
    lines = ["{", "[1]", "7", json.dumps(broken), json.dumps(pixmo_rows()[1])]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    bad = convert_pixmo(tmp_path / "rows.jsonl", tmp_path / "pictures", tmp_path / "set", skip_bad=True)
    assert [error.line for error in bad] == [1, 2, 3, 4]
    assert "is not JSON" in str(bad[0]) and "must be a JSON object" in str(bad[1])
    assert all("questions.jsonl" not in str(error) for error in bad)
    assert len(read_dataset(tmp_path / "set").samples) == 1


def test_pictures_whose_names_come_out_alike_stay_apart(tmp_path: Path) -> None:
    folder = point_bench(tmp_path / "bench")
    entries = [
        {"category": "spatial", "image_filename": name, "mask_filename": "a.png", "user_input": name}
        for name in ("a b.png", "a_b.png")
    ]
    for shade, name in enumerate(("a b.png", "a_b.png")):
        Image.new("RGB", SIZE, (shade, 0, 0)).save(folder / "images" / "spatial" / name)
    (folder / "data.json").write_text(json.dumps(entries))
    convert_point_bench(folder, tmp_path / "set")
    first, second = read_dataset(tmp_path / "set").samples
    assert first.image != second.image
    assert (first.read_image()[0, 0, 0], second.read_image()[0, 0, 0]) == (0, 1)


def test_what_cannot_be_read_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    (tmp_path / "rows.jsonl").write_text("{")
    (tmp_path / "empty.jsonl").write_text("\n")
    for name, says in (
        ("rows.parquet", "to_json"),
        ("rows.jsonl", r"rows\.jsonl:1: is not JSON"),
        ("none.jsonl", "not found"),
        ("empty.jsonl", "nothing to convert"),
    ):
        with pytest.raises(DatasetError, match=says):
            convert_pixmo(tmp_path / name, tmp_path, tmp_path / f"{name}.set")


def point_bench(folder: Path) -> Path:
    entries: list[dict[str, Any]] = [
        {"category": "spatial", "mask_filename": "a.png", "user_input": "Point to the cup"},
        {"category": "counting", "mask_filename": "b.png", "user_input": "the cups", "count": 2},
        {"category": "spatial", "user_input": "not finished"},
    ]
    entries = [{"image_filename": "a.png"} | entry for entry in entries]
    for category in ("spatial", "counting"):
        save(folder / "images" / category / "a.png")
    save(folder / "masks" / "a.png", square(3, 3))
    save(folder / "masks" / "b.png", square(3, 3) | square(20, 3))
    (folder / "data.json").write_text(json.dumps(entries))
    return folder


def test_point_bench_asks_for_regions_and_counts(tmp_path: Path) -> None:
    convert_point_bench(point_bench(tmp_path / "bench"), tmp_path / "set")
    spatial, counting = read_dataset(tmp_path / "set").samples
    assert (spatial.task, spatial.tag, spatial.target) == ("region", "spatial", "Point to the cup")
    assert (counting.task, counting.count, len(counting.masks)) == ("count", 2, 1)
    np.testing.assert_array_equal(spatial.read_masks(SIZE)[0], square(3, 3))


def where2place(folder: Path) -> Path:
    text = (
        "Identify several spots within the vacant space that's behind the mug. Your answer should be formatted as "
        "a list of tuples, i.e. [(x1, y1), ...]."
    )
    rows = [{"question_id": i, "image": f"0{i}.png", "text": text, "category": "free"} for i in range(2)]
    for i in range(2):
        save(folder / "images" / f"0{i}.png")
        save(folder / "masks" / f"0{i}.jpg", square(8 * i, 8, side=8))
    (folder / "point_questions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def test_where2place_masks_go_by_the_number_of_the_line(tmp_path: Path) -> None:
    convert_where2place(where2place(tmp_path / "places"), tmp_path / "set")
    samples = read_dataset(tmp_path / "set").samples
    assert [s.target for s in samples] == ["the vacant space that's behind the mug"] * 2
    assert samples[0].task == "region" and samples[0].question and "tuples" in samples[0].question
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.read_masks(SIZE)[0], square(8 * i, 8, side=8))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Locate some points in the free area left of the box.", "the free area left of the box"),
        ("Please point to the spot on the shelf", "the shelf"),
        ("Find a few spots within the tray. Your answer should be formatted as X", "the tray"),
        ("Pinpoint the cup's handle", "the cup's handle"),
        ("the empty place in front of the plate", "the empty place in front of the plate"),
        ("Point to", "Point to"),
    ],
)
def test_the_place_is_told_from_the_command(text: str, place: str) -> None:
    assert place_of(text) == place


def test_the_command_line_converts_and_says_how_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = point_bench(tmp_path / "bench")
    assert run(["convert", "--from", "point-bench", str(bench), "--out", str(tmp_path / "set")]) == 0
    assert "2 questions" in capsys.readouterr().out
    (bench / "masks" / "b.png").unlink()
    again = ["convert", "--from", "point-bench", str(bench), "--out"]
    assert run([*again, str(tmp_path / "two")]) == 1
    assert "data.json:2: " in capsys.readouterr().out
    assert run([*again, str(tmp_path / "three"), "--skip-bad"]) == 0
    assert "1 questions" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["convert", "--from", "pixmo", str(bench / "data.json"), "--out", str(tmp_path / "four")])
