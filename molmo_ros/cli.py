"""`molmo_ros`: pointing from the command line, without ROS.

molmo_ros point picture.png "the red cube"
molmo_ros point picture.png "the red cube" --depth depth.png --camera camera_info.yaml --json
molmo_ros collect recorded_bag/ --out sets/mine
molmo_ros replay recorded_requests/
molmo_ros calibrate --print-board board.pdf
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import yaml
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.table import Table

from molmo_ros.calibrate_command import add_calibrate
from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.depth_image import depth_m_from
from molmo_ros.geometry.frame import Frame
from molmo_ros.geometry.locate import Located, locate
from molmo_ros.outcome import Code, PointingError
from molmo_ros.pointing import bundled_model_folder
from molmo_ros.pointing.annotate import annotate
from molmo_ros.pointing.point import Point2D
from molmo_ros.pointing.prompts import clean_target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from molmo_ros.nodes.replay import Replayed


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: points were found; 1: the thing is not there; 2: the request could not be answered."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except PointingError as error:
        print(f"molmo_ros: {error}", file=sys.stderr)
        return 1 if error.outcome.code == Code.NOT_FOUND else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="molmo_ros", description="Point at things with Molmo.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    point = commands.add_parser(
        "point", help="point at a thing in a picture", description=point_command.__doc__
    )
    point.add_argument("image", type=Path, help="picture (PNG, JPEG, ...)")
    point.add_argument("target", help='what to point at, such as "the red cube"')
    point.add_argument(
        "--depth", type=Path, help="depth registered to the picture: 16-bit PNG in mm, or .npy in metres"
    )
    point.add_argument(
        "--camera", type=Path, help="camera_info.yaml (camera_calibration's file, or a CameraInfo)"
    )
    point.add_argument(
        "--rectified", action="store_true", help="the picture is rectified: use P instead of K and D"
    )
    point.add_argument(
        "--model", type=Path, help="folder of a checkpoint (default: the bundled tabletop model)"
    )
    point.add_argument(
        "--point-format",
        default="auto",
        metavar="NAME",
        help="how the model points, as docs/models.md names it (default: auto, for Molmo and Molmo2)",
    )
    point.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    point.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (default: auto)")
    point.add_argument(
        "--quantization", default="none", help="none, int8, int4: smaller weights on a CPU (default: none)"
    )
    point.add_argument("--max-points", type=int, default=0, metavar="N", help="at most N points, 0 = all")
    point.add_argument("--annotate", type=Path, metavar="FILE", help="write the picture with its points here")
    point.add_argument("--json", action="store_true", help="print JSON instead of a table")
    point.set_defaults(run=point_command)
    collect = commands.add_parser(
        "collect",
        help="make a data set of answers that people confirmed or corrected",
        description=collect_command.__doc__,
    )
    collect.add_argument(
        "bag",
        type=Path,
        nargs="?",
        help="a recorded bag: its folder, or one .mcap file; without one the running node is listened to until Ctrl-C",
    )
    collect.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the data set to write"
    )
    collect.add_argument(
        "--node", default="/pointing_node", metavar="NAME", help="full name of the pointing node"
    )
    collect.add_argument(
        "--image", default="/camera/color/image_raw", metavar="TOPIC", help="the pictures that the node saw"
    )
    collect.add_argument(
        "--all",
        action="store_true",
        help="of a bag: take answers that nobody looked at as right, too; be sure that they are",
    )
    collect.set_defaults(run=collect_command)
    replay = commands.add_parser(
        "replay",
        help="run recorded requests again and compare, or play what they saw onto ROS topics",
        description=replay_command.__doc__,
    )
    replay.add_argument(
        "bag", type=Path, help="folder of the node's parameter record, or one request's bag in it"
    )
    replay.add_argument(
        "--params", type=Path, metavar="FILE", help="parameters that are to differ from the recorded ones"
    )
    replay.add_argument(
        "--pixels", type=float, default=0.5, metavar="N", help="points may move so far in the picture (0.5)"
    )
    replay.add_argument(
        "--mm", type=float, default=1.0, metavar="N", help="points may move so far in space (1.0)"
    )
    replay.add_argument(
        "--publish",
        action="store_true",
        help="do not run them, but play their pictures, depth, transforms and time onto ROS topics until Ctrl-C",
    )
    replay.add_argument(
        "--show", type=float, default=5.0, metavar="S", help="with --publish: seconds for each request (5)"
    )
    replay.set_defaults(run=replay_command)
    add_calibrate(commands)
    return parser


def collect_command(chosen: argparse.Namespace) -> int:
    """Answers of a pointing node that people confirmed or corrected, as a data set to tune or judge a model with.
    People say so by a TargetArray on ~/reviewed_targets, or by clicks in rqt_image_view on the annotated image;
    docs/datasets.md tells how. Exit code 0: there is a data set, 2: there is none."""
    try:
        from molmo_ros.training.collect import BagError, DatasetError, Topics, collect_bag
    except ImportError as error:
        print(f"molmo_ros: {error}; pip install 'molmo_ros[training]'", file=sys.stderr)
        return 2
    try:
        if chosen.bag is None:
            written, left_out = _collect_live(chosen)
        else:
            topics = Topics.of(chosen.node, chosen.image)
            written, left_out = collect_bag(chosen.bag, chosen.out, topics, everything=chosen.all)
    except (BagError, DatasetError) as error:
        print(f"molmo_ros: {error}", file=sys.stderr)
        return 2
    for reason in left_out:
        print(f"left out: {reason}")
    print(f"{written} questions in {chosen.out}")
    return 0 if written else 2


def _collect_live(chosen: argparse.Namespace) -> tuple[int, list[str]]:
    try:
        from molmo_ros.nodes.answer_collector import collect_live
    except ImportError as error:
        raise PointingError(Code.INVALID_REQUEST, f"no ROS here ({error}): name a recorded bag") from error
    return collect_live(chosen.node, chosen.image, chosen.out)


def replay_command(chosen: argparse.Namespace) -> int:
    """Requests that pointing_node recorded (its parameter record), run again through the same pipeline, without
    cameras. Exit code 0: every answer is the same, 1: one differs, 2: nothing could be run. Needs the ROS messages."""
    try:
        from molmo_ros.nodes.parameter_files import read_values
        from molmo_ros.nodes.parameter_table import ParameterError
        from molmo_ros.nodes.replay import Tolerance, replay
        from molmo_ros.nodes.request_bag import read_request, request_bags
        from molmo_ros.recorded_bag import BagError
    except ImportError as error:
        print(
            f"molmo_ros: {error}; replay needs a sourced ROS 2 and pip install 'molmo_ros[recording]'",
            file=sys.stderr,
        )
        return 2
    try:
        bags = request_bags(chosen.bag)
        if chosen.publish:
            return _play([path for path in bags if read_request(path).raw is not None], chosen.show)
        changes = read_values(chosen.params) if chosen.params else {}
        tolerance = Tolerance(chosen.pixels, chosen.mm / 1000)
        return _print_replayed(replay((read_request(path) for path in bags), changes, tolerance))
    except (BagError, ParameterError) as error:
        print(f"molmo_ros: {error}", file=sys.stderr)
        return 2


def _play(bags: list[Path], show_s: float) -> int:
    from molmo_ros.nodes.request_player import play

    if not bags:
        print("molmo_ros: none of these requests saw a frame", file=sys.stderr)
        return 2
    print(f"playing {len(bags)} requests on their topics and /clock; Ctrl-C ends it", flush=True)
    play(
        bags, show_s, lambda shown: print(f"{shown.path.name}: {shown.camera}, {shown.request.words!r}", flush=True)
    )
    return 0


def _print_replayed(results: Iterable[Replayed]) -> int:
    """One at a time: each holds its pictures."""
    table = Table()
    for name in ("recorded", "words", "moved px", "moved mm", "s then", "s now", "answer"):
        table.add_column(name, overflow="fold")
    same = run = left_out = 0
    for each in results:
        then, now = each.recorded, each.again
        same, run, left_out = same + each.same, run + (now is not None), left_out + (now is None)
        verdict = f"the same, {then.outcome.code.name}" if each.same else each.difference
        table.add_row(
            then.path.name.removeprefix("request_").partition("_")[0],
            then.request.words,
            _shown(_known(each.moved_px, 2), ".2f") if now else "",
            _shown(_known(1000 * each.moved_m, 2), ".2f") if now else "",
            f"{then.total_s:.2f}",
            f"{now.seconds.total:.2f}" if now else "",
            verdict if now else f"not run: {verdict} ({then.outcome.code.name})",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(
        f"{same} of {run} answers are the same"
        + (f"; {left_out} requests could not be run again" if left_out else "")
    )
    if not run:
        return 2
    return 0 if same == run else 1


def point_command(chosen: argparse.Namespace) -> int:
    """Print the points of a thing in a picture: pixels of the picture (0,0 = centre of the top-left pixel),
    percent of its width and height, the model's confidence, and with --depth the place in the camera frame."""
    clean_target(chosen.target)
    image = read_picture(chosen.image)
    frame = read_frame(image, chosen)
    from molmo_ros.molmo.loading import CheckpointError
    from molmo_ros.pointing.loading import load_pointer

    try:
        pointer = load_pointer(
            chosen.model or bundled_model_folder(),
            chosen.device,
            chosen.dtype,
            chosen.quantization,
            chosen.point_format,
        )
    except CheckpointError as error:
        raise PointingError(Code.MODEL_UNAVAILABLE, str(error)) from error
    pointing = pointer.point(image, chosen.target, max_points=max(chosen.max_points, 0))
    located = [locate(frame, point, np.eye(4)) if frame else None for point in pointing.points]
    rows = [_row(p, at, image.shape[:2]) for p, at in zip(pointing.points, located, strict=True)]
    if chosen.annotate:
        Image.fromarray(annotate(image, pointing.points, banner=chosen.target)).save(chosen.annotate)
    if chosen.json:
        print(json.dumps({"target": chosen.target, "answer": pointing.answer, "points": rows}, indent=2))
    else:
        _print_table(rows, pointing.answer, with_place=frame is not None)
    return 0 if rows else 1


def read_picture(path: Path) -> np.ndarray:
    """HxWx3 uint8 RGB; raises PointingError(BAD_IMAGE)."""
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise PointingError(Code.BAD_IMAGE, f"there is no file {path}") from error
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise PointingError(
            Code.BAD_IMAGE, f"{path} is not a readable picture ({error}); PNG and JPEG work"
        ) from error


def read_frame(image_HW3: np.ndarray, chosen: argparse.Namespace) -> Frame | None:
    """Picture, depth and camera together; None without depth."""
    if chosen.depth is None:
        return None
    if chosen.camera is None:
        raise PointingError(
            Code.NO_CAMERA_INFO, "--depth needs --camera, the camera_info.yaml of the picture"
        )
    camera = read_camera(chosen.camera, rectified=chosen.rectified)
    return Frame(image_HW3, read_depth(chosen.depth), camera, stamp_ns=0, frame_id="camera")


def read_depth(path: Path) -> np.ndarray:
    """Depth in metres, NaN = no return, from a 16-bit PNG in millimetres or a .npy file in metres."""
    if not path.is_file():
        raise PointingError(Code.NO_DEPTH, f"there is no file {path}")
    if path.suffix == ".npy":
        try:
            raw = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise PointingError(Code.BAD_IMAGE, f"{path} is not a readable .npy file: {error}") from error
        return depth_m_from("32FC1", np.asarray(raw, np.float32))
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2 or raw.dtype != np.uint16:
        raise PointingError(
            Code.BAD_IMAGE, f"{path} is not a 16-bit single-channel PNG in mm, nor a .npy in metres"
        )
    return depth_m_from("16UC1", raw)


def read_camera(path: Path, *, rectified: bool) -> CameraModel:
    """A camera from the YAML of camera_calibration, or from `ros2 topic echo --once .../camera_info`."""
    try:
        document: Any = next(iter(yaml.safe_load_all(path.read_text(encoding="utf-8"))), None)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PointingError(Code.BAD_CAMERA_INFO, f"{path} is not readable YAML: {error}") from error
    if not isinstance(document, dict):
        raise PointingError(
            Code.BAD_CAMERA_INFO, f"{path} holds no camera; camera_calibration writes such files"
        )

    def field(*names: str) -> Any:
        for name in names:
            if name in document:
                value = document[name]
                return value["data"] if isinstance(value, dict) and "data" in value else value
        raise PointingError(Code.BAD_CAMERA_INFO, f"{path} has no {' or '.join(names)}")

    return CameraModel.from_info(
        width=field("image_width", "width"),
        height=field("image_height", "height"),
        k=field("camera_matrix", "k"),
        d=field("distortion_coefficients", "d"),
        r=document.get("r") or _data(document.get("rectification_matrix")),
        p=document.get("p") or _data(document.get("projection_matrix")),
        distortion_model=field("distortion_model"),
        rectified=rectified,
    )


def _data(matrix: Any) -> Any:
    return matrix["data"] if isinstance(matrix, dict) else matrix


def _row(point: Point2D, located: Located | None, size: tuple[int, int]) -> dict[str, Any]:
    """One point as JSON knows it: what is not known is null."""
    height, width = size
    row: dict[str, Any] = {
        "label": point.label,
        "u": round(point.u, 2),
        "v": round(point.v, 2),
        "x_percent": round(100 * point.u / width, 2),
        "y_percent": round(100 * point.v / height, 2),
        "confidence": _known(point.confidence, 4),
        "sigma_px": _known(point.sigma_px, 2),
    }
    if located is not None:
        row["position_camera_m"] = [_known(float(x), 4) for x in located.position_base_m]
        row["sigma_m"] = [_known(float(np.sqrt(x)), 4) for x in np.diag(located.position_cov_m2)]
        row["outcome"] = {"code": int(located.outcome.code), "name": located.outcome.code.name}
        row["outcome"]["message"] = located.outcome.message
    return row


def _known(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _print_table(rows: list[dict[str, Any]], answer: str, *, with_place: bool) -> None:
    console = Console()
    table = Table("label", "pixel u, v", "percent x, y", "confidence", "sigma px")
    if with_place:
        table.add_column("camera frame x, y, z m")
        table.add_column("outcome")
    for row in rows:
        cells = [
            row["label"],
            f"{row['u']:.1f}, {row['v']:.1f}",
            f"{row['x_percent']:.1f}, {row['y_percent']:.1f}",
            _shown(row["confidence"], ".2f"),
            _shown(row["sigma_px"], ".1f"),
        ]
        if with_place:
            cells.append(", ".join(_shown(x, ".3f") for x in row["position_camera_m"]))
            cells.append(" ".join([row["outcome"]["name"], row["outcome"]["message"]]).strip())
        table.add_row(*cells)
    if rows:
        console.print(table)
    console.print(f"answer:{answer}", markup=False, highlight=False)


def _shown(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


if __name__ == "__main__":
    raise SystemExit(main())
