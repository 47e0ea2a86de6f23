"""From a picture to crops, padding masks and token positions, number for number as the released models saw them.

A picture is seen once as a whole and once in overlapping crops laid over an enlarged copy
("overlap-and-resize"). Every step below is done in the released order and precision; see the golden tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

#: Position of an image token that is not used (it lies in the overlap of two crops).
UNUSED = -100


@dataclass(frozen=True)
class ImageMarks:
    """Token ids that frame an image in the prompt; they differ between tokenizers."""

    start: int
    end: int
    patch: int
    col: int


@dataclass(frozen=True)
class ProcessedImage:
    """One picture as Molmo takes it.

    `tokens` [S]: the image's part of the prompt. `images` [C, P, 3 * patch^2] float32: crop 0 is the whole
    picture. `image_masks` [C, P] float32: share of real pixels per patch, one row off (see `pad_masks`).
    `image_input_idx` [C, T] int64: position in `tokens` of each pooled feature, `UNUSED` where there is none.
    `tiling`: (rows, columns) of the crops.
    """

    tokens: np.ndarray
    images: np.ndarray
    image_masks: np.ndarray
    image_input_idx: np.ndarray
    tiling: tuple[int, int]


class MolmoImageProcessor(BaseImageProcessor):
    """Preprocessing with the settings of `preprocessor_config.json`.

    Args:
        base_image_input_size: pixels (height, width) of a crop; square in every release.
        image_patch_size: side of a ViT patch in pixels.
        image_token_length_h, image_token_length_w: pooled tokens per crop and side; with the patches they
            say how many patches a token pools, 2 x 2 in every release.
        max_crops: most high-resolution crops.
        overlap_margins: patches that a crop shares with its left/top and right/bottom neighbour.
        image_mean, image_std: RGB normalisation.
        image_padding_mask: hand out masks of padded patches.
        do_normalize: subtract mean and divide by deviation.
    """

    model_input_names = ["images", "image_masks", "image_input_idx"]

    def __init__(
        self,
        base_image_input_size: Sequence[int] = (336, 336),
        image_patch_size: int = 14,
        image_token_length_h: int = 12,
        image_token_length_w: int = 12,
        max_crops: int = 12,
        overlap_margins: Sequence[int] = (4, 4),
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        image_padding_mask: bool = True,
        do_normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("auto_map", None)
        super().__init__(**kwargs)
        self.base_image_input_size = list(base_image_input_size)
        self.image_patch_size = image_patch_size
        self.image_token_length_h = image_token_length_h
        self.image_token_length_w = image_token_length_w
        self.max_crops = max_crops
        self.overlap_margins = list(overlap_margins)
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.image_padding_mask = image_padding_mask
        self.do_normalize = do_normalize
        if any(margin % pool for margin in self.overlap_margins for pool in self.pooling):
            raise ValueError(
                f"overlap_margins must be multiples of the {self.pooling} patches that a token pools; "
                f"got {self.overlap_margins}"
            )

    @property
    def crop_size(self) -> tuple[int, int]:
        """Pixels (height, width) of a crop."""
        height, width = self.base_image_input_size
        return int(height), int(width)

    @property
    def pooling(self) -> tuple[int, int]:
        """Patches (down, across) that are pooled into one token."""
        rows, cols = (side // self.image_patch_size for side in self.crop_size)
        return -(-rows // self.image_token_length_h), -(-cols // self.image_token_length_w)

    @property
    def margin_size(self) -> int:
        """Pixels that two neighbouring crops share."""
        return int(self.image_patch_size * sum(self.overlap_margins))

    @property
    def window_size(self) -> tuple[int, int]:
        """Pixels (down, across) from one crop to the next."""
        height, width = self.crop_size
        return height - self.margin_size, width - self.margin_size

    def process(self, image: Image.Image | np.ndarray, marks: ImageMarks) -> ProcessedImage:
        """Crops, masks, tokens and positions of one picture (PIL, or HxWx3 uint8 RGB)."""
        pixels_HW3 = rgb_array(image)
        height, width = pixels_HW3.shape[:2]
        tiling = select_tiling(
            height - self.margin_size, width - self.margin_size, self.window_size, self.max_crops
        )
        down, across = self.window_size
        canvas_size = (tiling[0] * down + self.margin_size, tiling[1] * across + self.margin_size)
        shares_13HW = torch.from_numpy(pixels_HW3).permute(2, 0, 1)[None].to(torch.float32).contiguous() / 255.0
        canvas, mask = self._resize_and_pad(shares_13HW, canvas_size)
        whole, _ = self._resize_and_pad(shares_13HW, self.crop_size)
        rows, cols = self.crop_size
        starts = [(r * down, c * across) for r in range(tiling[0]) for c in range(tiling[1])]
        crops = [whole, *(canvas[y : y + rows, x : x + cols] for y, x in starts)]
        masks = [mask[y : y + rows, x : x + cols, None] for y, x in starts]
        tokens, positions = self._layout(tiling, marks)
        return ProcessedImage(
            tokens=tokens,
            images=self._patches(crops),
            image_masks=pad_masks(self._patches(masks).mean(-1)),
            image_input_idx=positions,
            tiling=tiling,
        )

    def __call__(self, images: Image.Image | np.ndarray, marks: ImageMarks, **_: Any) -> BatchFeature:
        processed = self.process(images, marks)
        return BatchFeature(
            {
                "images": torch.from_numpy(processed.images)[None],
                "image_masks": torch.from_numpy(processed.image_masks)[None],
                "image_input_idx": torch.from_numpy(processed.image_input_idx)[None],
            }
        )

    def _resize_and_pad(self, shares_13HW: torch.Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Largest copy [H, W, 3] that fits `size`, centred, normalised; and 1 where it has image pixels.

        `shares_13HW` has pixels in 0..1. Padding is black before it is normalised, as in the released code.
        """
        height, width = fitted_size(tuple(shares_13HW.shape[2:]), size)
        resized_3HW = torch.nn.functional.interpolate(
            shares_13HW, size=(height, width), mode="bilinear", align_corners=False, antialias=True
        )[0].clamp_(0.0, 1.0)
        padding = torch.zeros(3, 1, 1)
        if self.do_normalize:
            mean, std = (torch.tensor(x, dtype=torch.float32)[:, None, None] for x in (self.image_mean, self.image_std))
            resized_3HW.sub_(mean).div_(std)
            padding = padding.sub_(mean).div_(std)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        inside = np.s_[top : top + height, left : left + width]
        canvas, mask = np.empty((*size, 3), np.float32), np.zeros(size, np.float32)
        if (height, width) != size:
            canvas[:] = padding.flatten().numpy()
        canvas[inside] = resized_3HW.permute(1, 2, 0).numpy()
        mask[inside] = 1.0
        return canvas, mask

    def _patches(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """C times [H, W, K] to [C, P, patch * patch * K], patches and pixels row by row, channel last."""
        p = self.image_patch_size
        height, width, channels = crops[0].shape
        rows, cols = height // p, width // p
        patches = np.empty((len(crops), rows, cols, p, p, channels), np.float32)
        for crop, into in zip(crops, patches, strict=True):
            into[:] = rearrange(crop, "(h p) (w q) k -> h w p q k", p=p, q=p)
        return patches.reshape(len(crops), rows * cols, -1)

    def _layout(self, tiling: tuple[int, int], marks: ImageMarks) -> tuple[np.ndarray, np.ndarray]:
        """The prompt's image tokens, and where each pooled feature of each crop goes in them."""
        order = self._reading_order(tiling)
        rows, cols = (
            -(-(count * (window // self.image_patch_size) + sum(self.overlap_margins)) // pool)
            for count, window, pool in zip(tiling, self.window_size, self.pooling, strict=True)
        )
        tokens = np.concatenate(
            [
                _framed(self.image_token_length_h, self.image_token_length_w, marks),
                _framed(rows, cols, marks),
            ]
        )
        place_of_patch = np.flatnonzero(tokens == marks.patch)
        return tokens, np.where(order >= 0, place_of_patch[order.clip(min=0)], UNUSED)

    def _reading_order(self, tiling: tuple[int, int]) -> np.ndarray:
        """[C, T] number of each kept feature: the whole picture first, then left to right, top to bottom.

        High-resolution features are numbered across crops, row by row of the whole picture, not crop by crop.
        """
        height, width = self.image_token_length_h, self.image_token_length_w
        kept_rows = [self._kept(r, tiling, axis=0) for r in range(tiling[0])]
        kept_cols = [self._kept(c, tiling, axis=1) for c in range(tiling[1])]
        kept = np.zeros((tiling[0], tiling[1], height, width), bool)
        for r, rows in enumerate(kept_rows):
            for c, cols in enumerate(kept_cols):
                kept[r, c, rows, cols] = True
        across = rearrange(kept, "r c h w -> (r h c w)")
        numbers = np.where(across, height * width + np.cumsum(across) - 1, -1)
        high = rearrange(numbers, "(r h c w) -> (r c) (h w)", r=tiling[0], c=tiling[1], h=height)
        return np.concatenate([np.arange(height * width)[None], high])

    def _kept(self, index: int, tiling: tuple[int, int], axis: int) -> slice:
        """Pooled rows (axis 0) or columns (1) of crop `index` along it that do not lie in an inner margin."""
        before, after = self.overlap_margins
        pool, length = self.pooling[axis], (self.image_token_length_h, self.image_token_length_w)[axis]
        patches = self.crop_size[axis] // self.image_patch_size
        patches -= (before if index > 0 else 0) + (after if index < tiling[axis] - 1 else 0)
        start = before // pool if index > 0 else 0
        return slice(start, min(start + -(-patches // pool), length))


def rgb_array(image: Image.Image | np.ndarray) -> np.ndarray:
    """A picture as HxWx3 uint8 RGB. EXIF rotation is not applied, as in the released code.

    Raises:
        ValueError: an array of another shape or type, or a picture of floats.
    """
    if isinstance(image, Image.Image):
        if image.mode == "F":
            raise ValueError("a picture of floats has no scale; convert it to 8 bits first")
        if image.mode.startswith("I"):
            # PIL would clip 16-bit grey at 255 instead of scaling it.
            grey = np.asarray(image).clip(0, 65535).astype(np.uint16) >> 8
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"an image must be HxWx3 uint8 RGB, not {image.dtype} of shape {image.shape}")
    return np.ascontiguousarray(image)


def select_tiling(height: int, width: int, window: tuple[int, int], max_crops: int) -> tuple[int, int]:
    """(rows, columns) of windows that a picture (less the margin) needs the least scaling for.

    When every tiling would shrink the picture, the one that shrinks least; else the one that enlarges least.
    """
    tilings = sorted(
        ((r, c) for r in range(1, max_crops + 1) for c in range(1, max_crops // r + 1)),
        key=lambda rc: (rc[0] * rc[1], rc[0]),
    )
    with np.errstate(divide="ignore"):
        sides = np.asarray(tilings, np.float32) * np.asarray(window, np.float32)
        sides /= np.asarray([height, width], np.float32)
    scale = sides.min(axis=1)
    best = np.argmax(scale) if (scale < 1).all() else np.argmin(np.where(scale < 1, np.float32(1e10), scale))
    return tilings[int(best)]


def fitted_size(size: tuple[int, ...], bounds: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the largest copy within `bounds`; in float32, which the released sizes depend on."""
    height, width = (np.float32(side) for side in size)
    scale = min(np.float32(bounds[0]) / height, np.float32(bounds[1]) / width)
    return max(int(height * scale), 1), max(int(width * scale), 1)


def pad_masks(masks_CP: np.ndarray) -> np.ndarray:
    """High-resolution masks, then a row of -1 at the end.

    Row i belongs to crop i of the high-resolution crops but lies beside `images[i]`, which starts with the
    whole picture. The released weights were trained with this shift, so it must stay.
    """
    return np.concatenate([masks_CP, np.full((1, masks_CP.shape[1]), -1.0, np.float32)]).astype(np.float32)


def _framed(rows: int, cols: int, marks: ImageMarks) -> np.ndarray:
    row = [marks.patch] * cols + [marks.col]
    return np.asarray([marks.start, *(row * rows), marks.end], np.int64)
