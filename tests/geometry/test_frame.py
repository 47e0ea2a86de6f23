import numpy as np
import pytest

from molmo_ros.geometry.camera_model import CameraModel
from molmo_ros.geometry.frame import Frame
from molmo_ros.outcome import Code, PointingError


def frame(color: np.ndarray, depth: np.ndarray | None, camera: CameraModel) -> Frame:
    return Frame(
        color_HW3=color, depth_m=depth, camera=camera, stamp_ns=1, frame_id="camera_color_optical_frame"
    )


def test_a_frame_may_have_depth_or_not(camera: CameraModel) -> None:
    color = np.zeros((480, 640, 3), np.uint8)
    assert frame(color, None, camera).depth_m is None
    assert frame(color, np.ones((480, 640), np.float32), camera).depth_m is not None


@pytest.mark.parametrize(
    ("color_shape", "color_dtype", "depth_shape", "depth_dtype", "code", "said"),
    [
        ((480, 640), np.uint8, None, None, Code.BAD_IMAGE, "needs HxWx3 uint8"),
        ((480, 640, 3), np.float32, None, None, Code.BAD_IMAGE, "float32"),
        ((0, 640, 3), np.uint8, None, None, Code.BAD_IMAGE, "needs HxWx3"),
        (
            (720, 1280, 3),
            np.uint8,
            None,
            None,
            Code.BAD_CAMERA_INFO,
            "1280x720 but the camera model is of 640x480",
        ),
        (
            (480, 640, 3),
            np.uint8,
            (480, 848),
            np.float32,
            Code.BAD_IMAGE,
            "848x480 but colour is 640x480.*register",
        ),
        ((480, 640, 3), np.uint8, (480, 640), np.uint16, Code.BAD_IMAGE, "uint16; needs HxW float32"),
        ((480, 640, 3), np.uint8, (480, 640, 1), np.float32, Code.BAD_IMAGE, "needs HxW float32"),
    ],
)
def test_images_that_do_not_belong_together_are_refused(
    camera: CameraModel, color_shape: tuple, color_dtype: type, depth_shape: tuple | None,
    depth_dtype: type, code: Code, said: str,
) -> None:  # fmt: skip
    depth = None if depth_shape is None else np.ones(depth_shape, depth_dtype)
    with pytest.raises(PointingError, match=said) as caught:
        frame(np.zeros(color_shape, color_dtype), depth, camera)
    assert caught.value.outcome.code == code
