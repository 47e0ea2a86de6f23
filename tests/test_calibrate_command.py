"""`molmo_ros calibrate` without ROS: a board to print, a pose from a file of spots, files that are whole or absent."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

from molmo_ros.calibration_files import CameraPose, write_camera_pose
from molmo_ros.cli import main
from molmo_ros.geometry.charuco import CharucoBoard
from molmo_ros.geometry.pose import inverse, transform

T_BASE_CAMERA = np.eye(4)
T_BASE_CAMERA[:3, :3] = Rotation.from_euler("xyz", (170.0, 20.0, 60.0), degrees=True).as_matrix()
T_BASE_CAMERA[:3, 3] = (0.9, 0.1, 0.8)


def spots_file(folder: Path, *, in_a_line: bool = False) -> Path:
    rng = np.random.default_rng(1)
    base = rng.uniform((0.3, -0.3, 0.0), (0.7, 0.3, 0.2), (10, 3))
    if in_a_line:
        base[:, 0], base[:, 2] = 0.5, 0.0
    T = inverse(T_BASE_CAMERA)
    camera = base @ T[:3, :3].T + T[:3, 3]
    camera[4] += 0.1
    entries = [{"camera_m": c.tolist(), "base_m": b.tolist()} for c, b in zip(camera, base, strict=True)]
    file = folder / "spots.yaml"
    file.write_text(yaml.safe_dump(entries))
    return file


def test_the_board_is_printed_in_true_size(tmp_path: Path) -> None:
    assert main(["calibrate", "--print-board", str(tmp_path / "board.png"), "--square", "0.03"]) == 0
    with Image.open(tmp_path / "board.png") as page:
        dots_per_m = page.info["dpi"][0] / 0.0254
        picture = np.array(page)
    assert picture.shape[1] / dots_per_m == pytest.approx(0.297, abs=0.001)
    # Found as by a camera, the squares are 30 mm apart on paper.
    sight = CharucoBoard(square_m=0.03, marker_m=0.0223).find(cv2.resize(picture, None, fx=0.5, fy=0.5))
    on_paper_m = np.ptp(sight.pixels_N2, axis=0) * 2 / dots_per_m
    np.testing.assert_allclose(on_paper_m, (0.03 * 5, 0.03 * 3), atol=0.0003)


def test_the_board_is_printed_as_pdf_too(tmp_path: Path) -> None:
    assert main(["calibrate", "--print-board", str(tmp_path / "board.pdf")]) == 0
    assert (tmp_path / "board.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["board.txt", "nowhere/board.png"])
def test_a_board_that_cannot_be_written_is_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--print-board", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err


def test_spots_in_a_file_give_the_pose_without_ros(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "camera"
    assert (
        main(["calibrate", "--pairs", str(spots_file(tmp_path)), "--base", "fr3_link0", "--out", str(out)])
        == 0
    )
    assert "spot 5 is" in capsys.readouterr().out
    found = yaml.safe_load((tmp_path / "camera.yaml").read_text())
    assert found["parent_frame"] == "fr3_link0"
    np.testing.assert_allclose(
        transform(found["translation_m"], found["rotation_xyzw"]), T_BASE_CAMERA, atol=1e-4
    )


def test_spots_in_a_line_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = spots_file(tmp_path, in_a_line=True)
    assert main(["calibrate", "--pairs", str(file), "--out", str(tmp_path / "camera")]) == 2
    assert "in one line" in capsys.readouterr().err
    assert not list(tmp_path.glob("camera*"))


@pytest.mark.parametrize(
    "text", ["- {camera_m: [1, 2, 3]}", "nonsense: [", "- {camera_m: [a, b, c], base_m: [1, 2, 3]}"]
)
def test_a_file_that_holds_no_spots_is_said(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spots.yaml").write_text(text)
    assert main(["calibrate", "--pairs", str(tmp_path / "spots.yaml")]) == 2
    assert "base_m" in capsys.readouterr().err


def test_a_pose_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    pose = CameraPose("base_link", "camera_link", T_BASE_CAMERA, "10 of 10 spots", "1.0 mm", 0.001, 0.001)
    write_camera_pose(pose, tmp_path / "camera")
    before = (tmp_path / "camera.yaml").read_text()
    (tmp_path / "camera.launch.xml.part").mkdir()  # in the way of the next writing
    with pytest.raises(Exception, match=r"could not be written|directory"):
        write_camera_pose(CameraPose("other", "frames", np.eye(4), "", "", 0.0, 0.0), tmp_path / "camera")
    assert (tmp_path / "camera.yaml").read_text() == before
    assert "base_link" in (tmp_path / "camera.launch.xml").read_text()
