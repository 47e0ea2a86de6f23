"""`molmo_ros point` without ROS: answers, and one clear line for every bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from molmo_ros.cli import main
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.sim.tabletop import TabletopScene

SEED = 505


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated picture with its depth and camera, as files."""
    folder = tmp_path_factory.mktemp("scene")
    tabletop = TabletopScene((640, 480), samples=4)
    tabletop.reset(SEED)
    view = tabletop.render()
    Image.fromarray(view.color).save(folder / "picture.png")
    depth_mm = np.nan_to_num(view.depth_m * 1000).astype(np.uint16)
    cv2.imwrite(str(folder / "depth.png"), depth_mm)
    np.save(folder / "depth.npy", view.depth_m)
    K = tabletop.K().ravel().tolist()
    camera = {
        "image_width": 640,
        "image_height": 480,
        "distortion_model": "plumb_bob",
        "camera_matrix": {"rows": 3, "cols": 3, "data": K},
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.0] * 5},
    }
    (folder / "camera.yaml").write_text(yaml.safe_dump(camera))
    assert tabletop.state is not None
    # One surface around the point: beside a rim the place is that of the nearest pixel that surely is of the thing.
    (folder / "label.txt").write_text(next(o.label for o in tabletop.state.named if o.kind == "cylinder"))
    tabletop.close()
    return folder


def label(scene: Path) -> str:
    return (scene / "label.txt").read_text()


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, list[dict[str, Any]]]:
    code = main(["point", *map(str, arguments), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert code == (0 if answer["points"] else 1)
    return dict(answer)


def test_points_come_in_pixels_and_percent(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, scene / "picture.png", f"the {label(scene)}")
    for point in answer["points"]:
        assert point["u"] == pytest.approx(float(str(point["x_percent"])) * 6.4, abs=0.05)
        assert point["v"] == pytest.approx(float(str(point["y_percent"])) * 4.8, abs=0.05)


@pytest.mark.parametrize("depth", ["depth.png", "depth.npy"])
def test_depth_gives_a_place_on_the_ray_of_the_pixel(
    scene: Path, capsys: pytest.CaptureFixture[str], depth: str
) -> None:
    files: list[str | Path] = ["--depth", scene / depth, "--camera", scene / "camera.yaml"]
    K = yaml.safe_load((scene / "camera.yaml").read_text())["camera_matrix"]["data"]
    points = run_json(capsys, scene / "picture.png", f"the {label(scene)}", *files)["points"]
    assert points
    for point in points:
        x, y, z = point["position_camera_m"]
        assert K[0] * x / z + K[2] == pytest.approx(point["u"], abs=0.5)
        assert K[4] * y / z + K[5] == pytest.approx(point["v"], abs=0.5)


def test_a_table_and_a_picture_are_for_people(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        ["point", str(scene / "picture.png"), f"the {label(scene)}", "--annotate", str(tmp_path / "out.png")]
    )
    assert "answer:" in capsys.readouterr().out
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (640, 480)


def nan_camera(folder: Path) -> list[str | Path]:
    camera = yaml.safe_load((folder / "camera.yaml").read_text())
    camera["camera_matrix"]["data"][0] = float("nan")
    (folder / "nan.yaml").write_text(yaml.safe_dump(camera))
    return [folder / "picture.png", "mug", "--depth", folder / "depth.png", "--camera", folder / "nan.yaml"]


def small_depth(folder: Path) -> list[str | Path]:
    np.save(folder / "small.npy", np.ones((10, 10), np.float32))
    return [
        folder / "picture.png",
        "mug",
        "--depth",
        folder / "small.npy",
        "--camera",
        folder / "camera.yaml",
    ]


def no_picture(folder: Path) -> list[str | Path]:
    (folder / "broken.png").write_bytes((folder / "picture.png").read_bytes()[:500])
    return [folder / "broken.png", "mug"]


def no_tokenizer(folder: Path) -> list[str | Path]:
    model = Path(shutil.copytree(bundled_model_folder(), folder / "no_tokenizer", dirs_exist_ok=True))
    (model / "tokenizer.json").unlink()
    return [folder / "picture.png", "mug", "--model", model]


def truncated(folder: Path) -> list[str | Path]:
    model = Path(shutil.copytree(bundled_model_folder(), folder / "truncated", dirs_exist_ok=True))
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])
    return [folder / "picture.png", "mug", "--model", model]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (no_picture, "BAD_IMAGE"),
        (lambda f: [f / "nowhere.png", "mug"], "there is no file"),
        (lambda f: [f / "picture.png", ""], "EMPTY_TARGET"),
        (lambda f: [f / "picture.png", "x" * 10_000], "TARGET_TOO_LONG"),
        (lambda f: [f / "picture.png", "mug", "--depth", f / "depth.png"], "needs --camera"),
        (nan_camera, "BAD_CAMERA_INFO"),
        (small_depth, "BAD_IMAGE"),
        (no_tokenizer, "no tokenizer.json"),
        (truncated, "cut short"),
        (lambda f: [f / "picture.png", "mug", "--model", f / "nowhere"], "there is no folder"),
        (lambda f: [f / "picture.png", "mug", "--point-format", "percent"], "unknown point format 'percent'"),
    ],
)
def test_a_bad_input_gets_one_clear_line(
    scene: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Path], list[str | Path]],
    says: str,
) -> None:
    code = main(["point", *map(str, arguments(scene))])
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert says in error and "\n" not in error and "Traceback" not in error
