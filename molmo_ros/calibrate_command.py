"""`molmo_ros calibrate`: where the camera is, from a printed board or from spots that the arm touches.

molmo_ros calibrate --print-board board.pdf
molmo_ros calibrate --mounting eye_to_hand --base base_link --hand tool0 --out camera_pose
molmo_ros calibrate --touch --base base_link --hand fingertip --out camera_pose
molmo_ros calibrate --pairs spots.yaml --base base_link --child camera_color_optical_frame --out camera_pose

docs/calibration.md tells how it is done well. (What makes a model's confidence come true is another program:
`python -m molmo_ros.training.calibrate_confidence`.)
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image
from rich.console import Console

from molmo_ros.calibration_files import CameraPose, write_camera_pose
from molmo_ros.geometry.charuco import DICTIONARIES, CharucoBoard
from molmo_ros.geometry.hand_eye import FEWEST_VIEWS, MOUNTINGS, BoardView, HandEye, calibrate_hand_eye
from molmo_ros.geometry.point_pairs import FEWEST_PAIRS, PairFit, fit_point_pairs
from molmo_ros.geometry.pose import inverse
from molmo_ros.outcome import Code, PointingError

if TYPE_CHECKING:
    from molmo_ros.geometry.camera_model import CameraModel
    from molmo_ros.nodes.calibration_views import CalibrationViews

_PRINT_DPI = 300
_A4_M = (0.297, 0.210)
#: A print that seems larger or smaller than this by the arm's measure is worth a word.
_SCALE_OFF = 0.01


def add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of `molmo_ros calibrate`."""
    command = commands.add_parser(
        "calibrate",
        help="find where the camera is on the robot (hand-eye calibration)",
        description=calibrate_command.__doc__,
    )
    way = command.add_mutually_exclusive_group()
    way.add_argument(
        "--print-board", type=Path, metavar="FILE", help="only draw the board: a .pdf or .png to print"
    )
    way.add_argument(
        "--touch",
        action="store_true",
        help="instead of a board: spots that the arm's tip touches, clicked at in RViz",
    )
    way.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="instead of a board: a YAML list of camera_m and base_m; no ROS",
    )
    command.add_argument(
        "--mounting",
        choices=MOUNTINGS,
        default="eye_to_hand",
        help="eye_to_hand: the camera stands, the hand carries the board; eye_in_hand: the hand carries the camera, "
        "the board lies (default: eye_to_hand)",
    )
    command.add_argument(
        "--base", default="base_link", metavar="FRAME", help="the arm's base (default: base_link)"
    )
    command.add_argument(
        "--hand",
        default="tool0",
        metavar="FRAME",
        help="the arm's hand; with --touch the tip that touches (default: tool0)",
    )
    command.add_argument(
        "--child",
        default="",
        metavar="FRAME",
        help="frame to place (default: the uppermost of the camera's own in TF, such as camera_link)",
    )
    command.add_argument(
        "--image", default="camera/color/image_raw", metavar="TOPIC", help="the camera's pictures"
    )
    command.add_argument(
        "--info", default="camera/color/camera_info", metavar="TOPIC", help="their CameraInfo"
    )
    command.add_argument("--click", default="clicked_point", metavar="TOPIC", help="clicks, with --touch")
    command.add_argument(
        "--rectified", action="store_true", help="pictures are rectified: use P instead of K and D"
    )
    command.add_argument(
        "--timeout", type=float, default=5.0, metavar="S", help="wait so long for a picture (default: 5)"
    )
    board = CharucoBoard()
    command.add_argument(
        "--board",
        nargs=2,
        type=int,
        default=(board.columns, board.rows),
        metavar=("COLUMNS", "ROWS"),
        help=f"squares of the board (default: {board.columns} {board.rows})",
    )
    command.add_argument(
        "--square",
        type=float,
        default=board.square_m,
        metavar="M",
        help="edge of a square, as measured on the print",
    )
    command.add_argument(
        "--marker", type=float, metavar="M", help="edge of a marker (default: in proportion)"
    )
    command.add_argument("--dictionary", default=board.dictionary, choices=DICTIONARIES)
    command.add_argument(
        "--out",
        type=Path,
        metavar="NAME",
        help="write NAME.launch.xml and NAME.yaml (without it: only print)",
    )
    command.add_argument(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        help="the rest of the line is for ROS, as for any node",
    )
    command.set_defaults(run=calibrate_command)


def calibrate_command(chosen: argparse.Namespace) -> int:
    """Find the camera's pose on the robot: against the arm's base, or on the hand that carries it. Move the arm so that
    the camera sees the board (or touch spots), press Enter for each view, q when done; the residuals are printed as
    they come, and the static transform is written in the end. Exit code 0: the pose is known, 2: it is not."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    proportion = CharucoBoard().marker_m / CharucoBoard().square_m
    columns, rows = chosen.board
    marker_m = chosen.marker or round(proportion * chosen.square, 4)
    board = CharucoBoard(columns, rows, chosen.square, marker_m, chosen.dictionary)
    if chosen.print_board:
        print_board(board, chosen.print_board)
        console.print(
            f"{chosen.print_board}: {board}. Print at 100 %, not fitted to the page; glue it to something flat; "
            "measure a square and give its edge as --square"
        )
        return 0
    if chosen.pairs:
        fit = fit_point_pairs(*read_pairs(chosen.pairs))
        _tell_pairs(console, fit)
        child = chosen.child or "camera_color_optical_frame"
        return _finish(
            console, chosen, CameraPose(chosen.base, child, fit.T_base_camera, **_figures_of_pairs(fit))
        )
    return _with_ros(console, chosen, board)


def print_board(board: CharucoBoard, file: Path) -> None:
    """A page (A4, or as large as the board needs) with the board in its middle, in true size at 100 %.

    Raises PointingError(INVALID_REQUEST) for a file that is no .pdf or .png, or cannot be written.
    """
    if file.suffix.lower() not in (".pdf", ".png"):
        raise PointingError(Code.INVALID_REQUEST, f"{file} is neither .pdf nor .png")
    square_px = max(round(board.square_m / 0.0254 * _PRINT_DPI), 20)
    dpi = square_px / board.square_m * 0.0254  # squares are whole pixels: the resolution gives way
    picture = board.picture(square_px)
    page_m = sorted(_A4_M, reverse=board.columns >= board.rows)
    page = [
        max(round(side_m / 0.0254 * dpi), pixels + square_px)
        for side_m, pixels in zip(page_m, picture.shape[::-1], strict=True)
    ]
    sheet = Image.new("L", (page[0], page[1]), 255)
    sheet.paste(
        Image.fromarray(picture), ((page[0] - picture.shape[1]) // 2, (page[1] - picture.shape[0]) // 2)
    )
    try:
        if file.suffix.lower() == ".pdf":
            sheet.save(file, resolution=dpi)
        else:
            sheet.save(file, dpi=(dpi, dpi))
    except OSError as error:
        raise PointingError(Code.INVALID_REQUEST, f"{file} cannot be written: {error}") from error


def read_pairs(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Spots (N, 3) in the camera's frame and in the base's. Raises PointingError(INVALID_REQUEST)."""
    try:
        entries: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        camera = np.array([entry["camera_m"] for entry in entries], float).reshape(-1, 3)
        base = np.array([entry["base_m"] for entry in entries], float).reshape(-1, 3)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise PointingError(
            Code.INVALID_REQUEST,
            f"{file} is no list of spots ({type(error).__name__}: {error}); it takes entries like "
            "- {camera_m: [0.01, 0.02, 0.7], base_m: [0.5, 0.1, 0.0]}",
        ) from error
    return camera, base


def _with_ros(console: Console, chosen: argparse.Namespace, board: CharucoBoard) -> int:
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from molmo_ros.nodes.calibration_views import CalibrationViews
    except ImportError as error:
        raise PointingError(Code.INVALID_REQUEST, f"no ROS here ({error}): use --pairs") from error
    # Ctrl-C ends the program like any other: nothing is written.
    rclpy.init(args=["--ros-args", *chosen.ros_args], signal_handler_options=SignalHandlerOptions.NO)
    views = CalibrationViews(
        rclpy.create_node("calibrate"),
        chosen.base,
        chosen.hand,
        chosen.image,
        chosen.info,
        chosen.click,
        rectified=chosen.rectified,
        timeout_s=chosen.timeout,
    )
    try:
        pose = _by_touch(console, chosen, views) if chosen.touch else _by_board(console, chosen, views, board)
        return _finish(console, chosen, pose)
    finally:
        views.close()
        rclpy.shutdown()


def _by_board(
    console: Console, chosen: argparse.Namespace, heard: CalibrationViews, board: CharucoBoard
) -> CameraPose:
    taken: list[BoardView] = []
    models: list[CameraModel] = []
    frames: list[str] = []

    def take() -> str:
        shot = heard.take()
        taken.append(BoardView(shot.T_base_hand, board.find(shot.color)))
        models.append(shot.camera)
        frames.append(shot.frame_id)
        found = f"view {len(taken)}: {len(taken[-1].sight.pixels_N2)} corners"
        if len(taken) < FEWEST_VIEWS:
            return f"{found}; at least {FEWEST_VIEWS} are needed, 15 are good"
        try:
            return f"{found}; so far {_in_words(calibrate_hand_eye(taken, shot.camera, chosen.mounting))}"
        except PointingError as error:
            return f"{found}; not yet: {error.outcome.message}"

    carried = "the board" if chosen.mounting == "eye_to_hand" else "the camera"
    console.print(
        f"The hand ({chosen.hand}) carries {carried}. Move it so that the whole board ({board}) is seen, large in the "
        "picture, tilted another way each time by 20 to 40 degrees; let it rest."
    )
    _ask(console, "a view", take, taken, models, frames)
    if not taken:
        raise PointingError(Code.INVALID_REQUEST, f"no views; at least {FEWEST_VIEWS} are needed")
    result = calibrate_hand_eye(taken, models[-1], chosen.mounting)
    for number in result.left_out:
        console.print(
            f"view {number + 1} fits to nothing ({result.view_rms_px[number]:.1f} px) and is left out"
        )
    console.print(f"{len(taken)} views: {_in_words(result)}")
    off = result.board_scale - 1.0
    if abs(off) > max(_SCALE_OFF, 4 * result.board_scale_sigma):
        console.print(
            f"The board seems {100 * abs(off):.1f} % {'larger' if off > 0 else 'smaller'} than it is said to be: "
            f"measure a square ({1e3 * board.square_m * result.board_scale:.1f} mm?) and give it as --square, or "
            "calibrate the camera's focal length"
        )
    mount = chosen.base if chosen.mounting == "eye_to_hand" else chosen.hand
    figures = {
        "how": f"{chosen.mounting}, {len(taken) - len(result.left_out)} of {len(taken)} views of {board}",
        "rms": f"{result.rms_px:.2f} px",
        "sigma_m": result.sigma_m,
        "sigma_rad": result.sigma_rad,
    }
    return _placed(console, chosen, heard, mount, frames[-1], result.T_mount_camera, figures)


def _by_touch(console: Console, chosen: argparse.Namespace, heard: CalibrationViews) -> CameraPose:
    in_camera: list[np.ndarray] = []
    in_base: list[np.ndarray] = []
    frames: list[str] = []

    def take() -> str:
        spot, frame = heard.click()
        if frames and frame != frames[-1]:
            raise PointingError(
                Code.INVALID_REQUEST,
                f"this click is in {frame}, those before in {frames[-1]}: keep to one frame",
            )
        in_base.append(heard.tip()[:3, 3])
        in_camera.append(spot)
        frames.append(frame)
        if len(in_base) < FEWEST_PAIRS:
            return f"spot {len(in_base)}; at least {FEWEST_PAIRS} are needed, 40 are good"
        try:
            fit = fit_point_pairs(in_camera, in_base)
        except PointingError as error:
            return f"spot {len(in_base)}; not yet: {error.outcome.message}"
        return f"spot {len(in_base)}: {1e3 * fit.off_m[-1]:.1f} mm off; so far {_pairs_in_words(fit)}"

    console.print(
        f"For each spot: click at it in RViz (Publish Point on the depth cloud, Fixed Frame = the camera's), touch it "
        f"with {chosen.hand}, let it rest. Spread the spots wide, some of them high."
    )
    _ask(console, "a spot", take, in_base, in_camera, frames)
    if not in_base:
        raise PointingError(Code.INVALID_REQUEST, f"no spots; at least {FEWEST_PAIRS} are needed")
    fit = fit_point_pairs(in_camera, in_base)
    _tell_pairs(console, fit)
    return _placed(console, chosen, heard, chosen.base, frames[-1], fit.T_base_camera, _figures_of_pairs(fit))


def _ask(console: Console, what: str, take: Callable[[], str], *kept: list[Any]) -> None:
    """Until the operator is done; what cannot be taken is said and asked for again."""
    while True:
        console.print(f"Enter = take {what}, u = take the last one back, q = done: ", end="")
        try:
            word = input().strip().lower()
        except EOFError:
            word = "q"
        if word == "q":
            return
        if word == "u":
            for list_ in kept:
                del list_[-1:]
            console.print(f"{len(kept[0])} left")
            continue
        try:
            console.print(take())
        except PointingError as error:
            console.print(str(error.outcome))


def _placed(
    console: Console,
    chosen: argparse.Namespace,
    heard: CalibrationViews,
    mount: str,
    camera_frame: str,
    T_mount_camera: np.ndarray,
    figures: dict[str, Any],
) -> CameraPose:
    """Of the frame to place instead of the camera's own."""
    child = chosen.child or heard.attached_frame(camera_frame, mount)
    before = heard.parent_of(child)
    if before:
        console.print(
            f"{child} is placed in {before} so far: end what publishes that, or TF gets two answers"
        )
    return CameraPose(mount, child, T_mount_camera @ inverse(heard.T_between(child, camera_frame)), **figures)


def _finish(console: Console, chosen: argparse.Namespace, pose: CameraPose) -> int:
    console.print(f"{pose.child} in {pose.parent}: {pose.arguments()}")
    if chosen.out:
        for file in write_camera_pose(pose, chosen.out):
            console.print(f"written: {file}")
    return 0


def _in_words(result: HandEye) -> str:
    return (
        f"{result.rms_px:.2f} px, camera known to {1e3 * result.sigma_m:.1f} mm and "
        f"{math.degrees(result.sigma_rad):.2f} deg (one sigma)"
    )


def _pairs_in_words(fit: PairFit) -> str:
    return (
        f"{1e3 * fit.rms_m:.1f} mm, camera known to {1e3 * fit.sigma_m:.1f} mm and "
        f"{math.degrees(fit.sigma_rad):.2f} deg (one sigma)"
    )


def _tell_pairs(console: Console, fit: PairFit) -> None:
    for number in fit.left_out:
        console.print(f"spot {number + 1} is {1e3 * fit.off_m[number]:.0f} mm off and is left out")
    console.print(f"{len(fit.off_m)} spots: {_pairs_in_words(fit)}")


def _figures_of_pairs(fit: PairFit) -> dict[str, Any]:
    return {
        "how": f"{len(fit.off_m) - len(fit.left_out)} of {len(fit.off_m)} spots",
        "rms": f"{1e3 * fit.rms_m:.1f} mm",
        "sigma_m": fit.sigma_m,
        "sigma_rad": fit.sigma_rad,
    }
