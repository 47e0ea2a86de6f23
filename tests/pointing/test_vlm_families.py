"""Pictures and questions become inputs as the families' own processors lay them out, without torchvision."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import SizeDict

from molmo_ros.pointing.formats import FORMATS
from molmo_ros.pointing.vlm_families import FAMILIES, Molmo2Pictures

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8))


def test_a_family_names_formats_that_exist_and_can_be_read() -> None:
    for family in FAMILIES.values():
        for name in family.formats:
            family.check(FORMATS[name])


def test_formats_in_pixels_go_only_where_the_pixels_are_known() -> None:
    FAMILIES["qwen3_vl"].check(FORMATS["qwen2_5_vl"])
    with pytest.raises(ValueError, match=r"in pixels.*speak molmo2"):
        FAMILIES["molmo2"].check(FORMATS["qwen2_5_vl"])


def test_enlarging_a_picture_is_plain_bilinear_interpolation() -> None:
    # Where nothing is made smaller, antialiasing plays no part and PIL does the same, up to rounding twice.
    image = torch.from_numpy(np.array(PICTURE)).permute(2, 0, 1).float()
    ours = Molmo2Pictures().resize(image, SizeDict(height=200, width=300), antialias=False)
    pil = np.array(PICTURE.resize((300, 200), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(ours.numpy() - pil).max() < 1.1


def test_batches_of_pictures_are_resized_one_by_one() -> None:
    batch = torch.rand(2, 3, 10, 12)
    pictures, size = Molmo2Pictures(), SizeDict(height=7, width=20)
    assert torch.equal(
        pictures.resize(batch, size), torch.stack([pictures.resize(one, size) for one in batch])
    )


def test_normalising_takes_the_mean_and_the_deviation_of_each_channel() -> None:
    image = torch.ones(2, 3, 4, 5) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    normal = Molmo2Pictures().normalize(image, [1.0, 1.0, 1.0], [1.0, 2.0, 4.0])
    assert normal[0, :, 0, 0].tolist() == [0.0, 0.5, 0.5]


def test_molmo2_sees_the_whole_picture_first_and_then_its_crops(molmo2_folder: Path) -> None:
    family = FAMILIES["molmo2"]
    processor = family.load_processor(molmo2_folder)
    white_left = np.zeros((96, 128, 3), np.uint8)
    white_left[:, :64] = 255
    inputs = family.inputs(processor, Image.fromarray(white_left), "Point to the mug.")
    patches = inputs["pixel_values"]  # crops, patches of 4 x 4, values in -1..1
    assert patches.shape[1:] == (16, 14 * 14 * 3)
    overview = patches[0].mean(-1).reshape(4, 4)
    assert (overview[:, :2] > 0.9).all() and (overview[:, 2:] < -0.9).all()
    rows, columns = inputs["image_grids"][0, 2:].tolist()
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    row = "<im_patch>" * columns + "<im_col>"
    assert f"<im_start>{row * rows}<im_end>Point to the mug.<|im_end|>\n<|im_start|>assistant\n" in text
    # As many marks as pooled features, or the model refuses.
    marks = inputs["input_ids"][0] == processor.tokenizer.convert_tokens_to_ids("<im_patch>")
    assert int(marks.sum()) == len(inputs["image_token_pooling"])


@pytest.mark.parametrize(
    ("name", "fixture"), [("qwen2_5_vl", "qwen2_5_folder"), ("qwen3_vl", "qwen3_folder")]
)
def test_qwen_says_how_large_a_picture_it_sees(
    name: str, fixture: str, request: pytest.FixtureRequest
) -> None:
    family = FAMILIES[name]
    processor = family.load_processor(request.getfixturevalue(fixture))
    inputs = family.inputs(processor, PICTURE, "Point to the mug.")
    width, height = family.input_size(processor, inputs) or (0, 0)
    patch = processor.image_processor.patch_size
    assert width * height == patch * patch * len(inputs["pixel_values"])
    assert abs(width - 128) <= patch and abs(height - 96) <= patch
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    marks = "<|image_pad|>" * (len(inputs["pixel_values"]) // 4)
    assert f"<|im_start|>user\n<|vision_start|>{marks}<|vision_end|>Point to the mug.<|im_end|>" in text


def test_florence_gets_the_sentence_of_its_task(florence2_folder: Path) -> None:
    family = FAMILIES["florence2"]
    processor = family.load_processor(florence2_folder)
    question = FORMATS["florence2_outlines"].prompt("the red mug")
    inputs = family.inputs(processor, PICTURE, question)
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.endswith("<image><s>Locate the red mug in the image with mask</s>")
    assert family.input_size(processor, inputs) is None


def test_a_checkpoint_without_a_chat_template_is_refused(molmo2_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(molmo2_folder, tmp_path / "copy"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        FAMILIES["molmo2"].load_processor(folder)
