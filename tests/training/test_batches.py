"""Training sees each question exactly as it would be asked alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from molmo_ros.molmo import MolmoProcessor
from molmo_ros.pointing.grammar import spoken_points
from molmo_ros.sim.colours import COLOUR_NAMES
from molmo_ros.sim.objects import KINDS
from molmo_ros.sim.worlds import FIRST, TABLETOP
from molmo_ros.training.batches import ANYWHERE, NOWHERE, SHORT_ANSWER_TOKENS, Batch, QuestionBatches
from molmo_ros.training.close_ups import WINDOW, CloseUps, window_features
from molmo_ros.training.questions import every_wording
from molmo_ros.training.scenes import Grid, Shard, Words, aim_point, covering_thing
from molmo_ros.training.schedule import read_config
from molmo_ros.training.tabletop_model import build_image_processor, gaze_loss
from molmo_ros.training.tokenizer import train_tokenizer
from molmo_ros.training.train import Trainer, build_processor, world_of
from molmo_ros.training.validation import text_logits

CONFIG = Path(__file__).parents[2] / "config" / "training" / "first.yaml"
WORLD_CONFIG = CONFIG.with_name("tabletop.yaml")


@cache
def processor() -> MolmoProcessor:
    sizes = yaml.safe_load(CONFIG.read_text())["model"]
    return MolmoProcessor(
        build_image_processor(sizes),
        train_tokenizer(every_wording(COLOUR_NAMES, KINDS), sizes["embedding_size"]),
    )


def shard(pictures: int = 4, on: Grid | None = None) -> Shard:
    """Noise with three things in it; nothing is rendered."""
    rng = np.random.default_rng(0)
    (height, width), (rows, cols) = (on or grid()).size, (on or grid()).patches
    kinds = np.zeros((pictures, FIRST.slots), np.uint8)
    colours = np.zeros_like(kinds)
    kinds[:, :3], colours[:, :3] = (1, 2, 3), (1, 2, 4)
    return Shard(
        pictures=rng.integers(0, 255, (pictures, height, width, 3), np.uint8),
        kinds=kinds,
        colours=colours,
        points=rng.uniform(5, 95, (pictures, FIRST.slots, 2)).astype(np.float32),
        patch_things=rng.integers(0, 4, (pictures, rows * cols), np.uint8),
        seeds=np.arange(pictures),
        world=FIRST.name,
    )


@cache
def grid() -> Grid:
    return Grid.of(processor().image_processor, (240, 320))


@cache
def household_grid() -> Grid:
    sizes = yaml.safe_load(WORLD_CONFIG.read_text())["model"]
    return Grid.of(build_image_processor(sizes), (480, 640))


@cache
def batches() -> QuestionBatches:
    return QuestionBatches(shard(), processor(), grid(), seed=3, pictures=2, questions=3)


@cache
def trainer(run: str = "unused") -> Trainer:
    config, schedule = read_config(CONFIG)
    return Trainer(config, schedule, Path(run))


def household_shard(pictures: int = 4) -> Shard:
    """Noise with six things of the tabletop world in it, a free spot, and something hidden."""
    rng = np.random.default_rng(1)
    words = Words.of(TABLETOP)
    made = replace(shard(pictures, household_grid()), world=TABLETOP.name)
    slots = (pictures, TABLETOP.slots)
    kinds, colours = np.zeros(slots, np.uint8), np.zeros(slots, np.uint8)
    for slot, (colour, kind) in enumerate(
        [
            ("red", "mug"),
            ("red", "mug"),
            ("pink", "banana"),
            ("blue", "can"),
            ("green", "can"),
            ("red", "star"),
        ]
    ):
        colours[:, slot], kinds[:, slot] = words.codes(colour, kind)
    hidden_kinds, hidden_colours = np.zeros(slots, np.uint8), np.zeros(slots, np.uint8)
    hidden_colours[:, 6], hidden_kinds[:, 6] = words.codes("white", "plate")
    return replace(
        made,
        kinds=kinds,
        colours=colours,
        points=rng.uniform(5, 95, (*slots, 2)).round(1).astype(np.float32),
        hidden_kinds=hidden_kinds,
        hidden_colours=hidden_colours,
        measures=rng.uniform(0.05, 1.0, (*slots, 3)).astype(np.float32) * (1, 1, 1000),
        free_spots=rng.uniform(20, 80, (pictures, 2)).round(1).astype(np.float32),
    )


@cache
def household_batches() -> QuestionBatches:
    config = yaml.safe_load(WORLD_CONFIG.read_text())
    return QuestionBatches(
        household_shard(),
        build_processor(config),
        household_grid(),
        seed=3,
        pictures=2,
        questions=6,
        short_share=0.0,
    )


def row_text(batch: Batch, row: int) -> str:
    return str(processor().tokenizer.decode(batch.question_ids[row], skip_special_tokens=True))


def test_a_batch_depends_on_the_seed_and_the_step_alone() -> None:
    once, twice = batches().batch(5), batches().batch(5)
    torch.testing.assert_close(once.images, twice.images)
    assert torch.equal(once.question_ids, twice.question_ids)
    assert not torch.equal(once.question_ids, batches().batch(6).question_ids)


def test_questions_behind_one_picture_give_the_logits_of_the_same_question_asked_alone() -> None:
    batch, net = batches().batch(0), trainer().model.eval()
    with torch.no_grad():
        features = net.model.vision_backbone.features(batch.images[:, None]).expand(-1, 2, -1, -1)
        tokens = net.model.vision_backbone.pool(features, batch.image_masks)
        packed = text_logits(net, batch, tokens)
        for row in range(len(batch.question_ids)):
            picture = row // 3
            alone = net(
                input_ids=torch.cat([batch.prefix_ids[picture], batch.question_ids[row]])[None],
                images=batch.images[picture][None, None].expand(-1, 2, -1, -1),
                image_masks=batch.image_masks[picture][None],
                image_input_idx=batch.image_input_idx[picture][None],
            ).logits[0, batch.prefix_ids.shape[1] :]
            torch.testing.assert_close(packed[row], alone, atol=1e-4, rtol=1e-4)


def test_training_pictures_are_prepared_as_the_processor_does() -> None:
    """Without the change of light: the crop of the training equals the processor's for the same pixels."""
    pixels = shard().pictures[np.array([0])][0]
    theirs = processor()(images=Image.fromarray(pixels), text="x")["images"][0, 0]
    p, (rows, cols) = grid().patch_size, grid().patches
    canvas = np.zeros((*grid().crop_size, 3), np.float32)
    top, left = grid().offset
    canvas[top : top + grid().size[0], left : left + grid().size[1]] = pixels / 255.0
    ours = (torch.from_numpy(canvas) - batches().mean) / batches().std
    ours = ours.reshape(rows, p, cols, p, 3).permute(0, 2, 1, 3, 4).reshape(rows * cols, -1)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_labels_are_the_answer_one_step_ahead() -> None:
    batch = batches().batch(1)
    for row in range(len(batch.question_ids)):
        said = batch.labels[row][batch.labels[row] >= 0]
        answer = processor().tokenizer.decode(said, skip_special_tokens=True)
        assert row_text(batch, row).endswith(answer)
        assert int(said[-1]) == processor().eos_token_id or len(said) == SHORT_ANSWER_TOKENS
        places = torch.nonzero(batch.labels[row] >= 0).flatten()[:-1]
        assert torch.equal(batch.question_ids[row][places + 1], batch.labels[row][places])


def test_the_gaze_goes_to_the_token_that_holds_the_spoken_point() -> None:
    rows, cols = grid().tokens
    for step in range(12):
        batch = batches().batch(step)
        for row in range(len(batch.question_ids)):
            text = row_text(batch, row)
            if "none" not in text and not text.endswith(">"):
                continue  # a short answer
            points = spoken_points(text)
            tokens = [int(t) for t in dict.fromkeys(batch.look_at[row].tolist()) if t >= 0]
            if "none" in text:
                assert set(batch.look_at[row].tolist()) == {ANYWHERE, NOWHERE}
            expected = []
            for point in points:
                right, down = point.x / 100 * cols, point.y / 100 * rows
                expected.append(int(min(down, rows - 1e-3)) * cols + int(min(right, cols - 1e-3)))
            assert tokens == list(dict.fromkeys(expected))


def test_the_gaze_loss_is_the_attention_of_the_models_own_head() -> None:
    """The same number from the attention weights that the model itself reports."""
    batch, net = batches().batch(2), trainer().model.eval()
    inputs: list[torch.Tensor] = []
    language = net.model.language_model
    handle = language.layers[2].register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    with torch.no_grad():
        tokens = torch.randn(2, 2, grid().tokens[0] * grid().tokens[1], 192)
        text_logits(net, batch, tokens)
        handle.remove()
        ours = gaze_loss(
            language, inputs[0], inputs[1], batch.image_input_idx, batch.look_at, batch.gaze_weights
        )
        net.set_attn_implementation("eager")
        shares, weights = [], []
        for row, place in torch.nonzero(batch.look_at != ANYWHERE).tolist():
            embeds = net.model.embed(batch.prefix_ids, tokens, batch.image_input_idx)[row // 3]
            words = net.model.wte(batch.question_ids[row])
            output = language(inputs_embeds=torch.cat([embeds, words])[None], output_attentions=True)
            looked = output.attentions[2][0, 0, len(embeds) + place]
            token = int(batch.look_at[row, place])
            targets = [0] if token == NOWHERE else batch.image_input_idx[row // 3, :, token]
            shares.append(looked[targets].sum())
            weights.append(batch.gaze_weights[row, place])
        net.set_attn_implementation("sdpa")
    weight = torch.stack(weights)
    expected = -(torch.stack(shares).log() * weight).sum() / weight.sum()
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_close_ups_are_cut_from_the_picture_at_their_places() -> None:
    close_ups = CloseUps(batches()).batch(1)
    whole = shard()
    assert len(close_ups.patches) == 2 * 3
    net = trainer().model.model.vision_backbone.image_vit
    with torch.no_grad():
        features = window_features(net, close_ups.patches, close_ups.places)
    assert features.shape == (6, WINDOW**2, 2 * 128)
    there = close_ups.kinds > 0
    shown = set(zip(close_ups.kinds[there].tolist(), close_ups.colours[there].tolist(), strict=True))
    assert shown == {(int(whole.kinds[0, i]), int(whole.colours[0, i])) for i in range(3)}


def test_the_vit_sees_a_window_of_all_patches_as_it_sees_the_picture() -> None:
    batch, net = batches().batch(1), trainer().model.model.vision_backbone.image_vit
    places = torch.arange(batch.images.shape[1]).expand(len(batch.images), -1)
    with torch.no_grad():
        torch.testing.assert_close(window_features(net, batch.images, places), net(batch.images))


def test_a_window_lies_around_its_thing() -> None:
    points, (rows, cols) = shard().points, grid().patches
    for step in range(4):
        close_ups = CloseUps(batches()).batch(step)
        for places in close_ups.places.tolist():
            assert (
                len({place // cols for place in places}) == len({place % cols for place in places}) == WINDOW
            )
            near = [
                int(y / 100 * rows) * cols + column
                for x, y in points[:, :3].reshape(-1, 2)
                for column in (int(x / 100 * cols), int((100 - x) / 100 * cols))
            ]
            assert set(places) & set(near)


def test_people_point_at_the_middle_or_at_the_near_side_of_a_ring() -> None:
    disc = np.zeros((40, 40), bool)
    disc[10:30, 10:30] = True
    assert aim_point(disc) == (19.5, 19.5)
    ring = disc.copy()
    ring[15:25, 15:25] = False
    u, v = aim_point(ring)
    assert ring[round(v), round(u)]
    assert (u, v) == (20.0, 27.0)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_patch_belongs_to_the_thing_that_covers_it(share: float) -> None:
    ids = np.zeros(grid().size, np.int32)
    p = grid().patch_size
    ids[2 * p : 3 * p, p : p + int(p * share)] = 3
    covered = covering_thing(ids, grid()).reshape(grid().patches)
    assert covered[2, 1] == (3 if share >= 0.2 else 0)
    covered[2, 1] = 0
    assert not covered.any()


def test_training_can_begin_with_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    config, schedule = read_config(CONFIG)
    first = Trainer(config, schedule, tmp_path)
    first.average = {name: value + 0.5 for name, value in first.average.items()}
    first.save(processor())
    second = Trainer(config, schedule, tmp_path)
    second.begin_with(tmp_path)
    for name, value in second.model.state_dict().items():
        torch.testing.assert_close(value, first.average[name], atol=0.01, rtol=0.01)
    for name, value in second.lessons.state_dict().items():
        torch.testing.assert_close(value, first.lessons.state_dict()[name], atol=0.01, rtol=0.01)


def test_a_step_lowers_the_loss_and_a_saved_run_goes_on_where_it_was(tmp_path: Path) -> None:
    config, schedule = read_config(CONFIG)
    begun = Trainer(config, schedule, tmp_path)
    begun.step = sum(lesson.steps for lesson in schedule.lessons[:2])
    batch = batches().batch(0)
    losses = [begun.take_step(batch).words.item() for _ in range(6)]
    assert losses[-1] < losses[0]
    begun.save(processor())
    resumed = Trainer(config, schedule, tmp_path)
    resumed.resume()
    assert resumed.step == begun.step
    torch.testing.assert_close(resumed.take_step(batch).words, begun.take_step(batch).words)


def test_the_tabletop_world_is_asked_about_sets_counts_and_free_space() -> None:
    batches = household_batches()
    texts = []
    for step in range(12):
        ids = batches.batch(step).question_ids
        texts += [str(batches.processor.tokenizer.decode(row, skip_special_tokens=True)) for row in ids]
    for said in (" shows a total of ", "<points ", "There are none.", "spot", "most"):
        assert any(said in text for text in texts), said
    assert not any("white plate" in text for text in texts)  # there is one, but hidden


def test_the_gaze_goes_to_every_point_of_a_set_and_to_the_free_spot() -> None:
    batches = household_batches()
    grid, (_, cols) = batches.grid, batches.grid.tokens
    (height, width), (top, left) = grid.size, grid.offset
    tall, wide = (grid.patch_size * pooled for pooled in grid.pooling)
    sets = 0
    for step in range(8):
        batch = batches.batch(step)
        for row in range(len(batch.question_ids)):
            text = str(batches.processor.tokenizer.decode(batch.question_ids[row], skip_special_tokens=True))
            points = spoken_points(text)
            sets += len(points) > 1
            looked = [t for t in dict.fromkeys(batch.look_at[row].tolist()) if t >= 0]
            expected = [
                int((p.y / 100 * height + top) / tall) * cols + int((p.x / 100 * width + left) / wide)
                for p in points
            ]
            assert looked == list(dict.fromkeys(expected))
    assert sets > 5


def test_what_the_words_name_is_numbered_in_the_words_of_the_world() -> None:
    batches = household_batches()
    batch = batches.batch(0)
    for row in range(len(batch.question_ids)):
        text = str(batches.processor.tokenizer.decode(batch.question_ids[row], skip_special_tokens=True))
        kind, colour = int(batch.asked_kind[row]), int(batch.asked_colour[row])
        assert not kind or TABLETOP.kinds[kind - 1] in text
        assert not colour or TABLETOP.colours[colour - 1] in text
    assert batch.truth.patch_kind.max() <= len(TABLETOP.kinds) + 1


def test_a_configuration_names_its_world_and_the_model_learns_its_words() -> None:
    config, schedule = read_config(WORLD_CONFIG)
    assert world_of(config) is TABLETOP
    assert world_of(read_config(CONFIG)[0]) is FIRST
    net = Trainer(config, schedule, Path("unused"))
    assert net.lessons.patch_sizes == [len(TABLETOP.kinds) + 2, len(TABLETOP.colours) + 1]
    bytes_on_disk = 2 * sum(parameter.numel() for parameter in net.model.parameters())
    assert bytes_on_disk <= 16e6
    assert net.model.config.text_config.hidden_size % 64 == 0


def test_where_the_cpu_has_no_bfloat16_products_the_training_is_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for here in (False, True):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda here=here: {"avx2": True, "avx512_bf16": here}
        )
        assert household_learner(tmp_path, compiled=False).in_bfloat16 is here


def test_a_step_on_the_tabletop_world_lowers_the_loss(tmp_path: Path) -> None:
    learner = household_learner(tmp_path, compiled=False)
    batch = household_batches().batch(0)
    losses = [learner.take_step(batch).words.item() for _ in range(5)]
    assert losses[-1] < losses[0]


def test_close_ups_beside_the_words_are_learnt_from_in_the_same_steps(tmp_path: Path) -> None:
    batch, close_ups = household_batches().batch(0), CloseUps(household_batches()).batch(0)
    left = []
    for beside in (None, close_ups):
        torch.manual_seed(0)
        learner = household_learner(tmp_path, compiled=False)
        for _ in range(4):
            learner.take_step(batch, beside)
        left.append(learner.close_up_losses(close_ups).patches.item())
    assert left[1] < left[0]


@pytest.mark.long
def test_compiled_layers_lose_what_the_others_lose(tmp_path: Path) -> None:
    batch = household_batches().batch(0)
    plain, compiled = (household_learner(tmp_path, compiled) for compiled in (False, True))
    compiled.model.load_state_dict(plain.model.state_dict())
    compiled.lessons.load_state_dict(plain.lessons.state_dict())
    for _ in range(3):
        expected, found = plain.take_step(batch), compiled.take_step(batch)
        for name, loss in vars(expected).items():
            torch.testing.assert_close(getattr(found, name), loss, rtol=0.02, atol=0.02)


def household_learner(run: Path, compiled: bool) -> Trainer:
    """Before its first step with words."""
    config, schedule = read_config(WORLD_CONFIG)
    learner = Trainer(config, replace(schedule, compiled=compiled), run)
    learner.step = sum(lesson.steps for lesson in schedule.lessons[:2])
    return learner
