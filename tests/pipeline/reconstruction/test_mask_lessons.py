"""The mask head: its lessons, its loss, and its place in a run."""

import math
from pathlib import Path

import pytest
import torch

from data.crops import Box
from data.detections import load_detections
from models.companions.mask_head import INPUT_SIZE, MaskHead, estimate_masks
from pipeline.reconstruction.companions.lessons import Draws
from pipeline.reconstruction.companions.mask_lessons import (
    REACH,
    REGION_SIZE,
    MaskLessons,
    Regions,
    compute_terms,
    grown,
    windows,
)
from pipeline.reconstruction.model_file import load_model
from tests.pipeline.reconstruction.toy import run, state
from tests.runs import assert_equal
from utils import checkpoint
from utils.cli import UserError
from utils.seeding import torch_generator

RUN = Path("checkpoints_recon/toy_singletpl")
CPU = torch.device("cpu")


def disk(radius: float, size: int = REGION_SIZE) -> torch.Tensor:
    """A red disk on blue with its mask, (4, size, size); the radius is a share of half the picture."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    inside = (line.square() + line[:, None].square() < radius**2).float()
    return torch.stack([inside, torch.zeros_like(inside), 1 - inside, inside])


def test_squares_grow_about_their_center() -> None:
    assert grown(Box(10, 20, 40), 2.5) == Box(-20, -10, 100)
    assert grown(Box(-3, 4, 8), 1) == Box(-3, 4, 8)


def test_windows_show_the_object_where_their_masks_say() -> None:
    regions = disk(0.3).expand(64, -1, -1, -1)
    colors, mask = windows(regions, Draws(torch_generator(1), regions[:, 0, 0, 0]))
    # The disk is the only red; brightness and contrast change, what is red does not, if it is not clipped
    red = colors[:, 0] - colors[:, 2]
    clear = red.abs() > 0.1
    assert clear.float().mean() > 0.9
    right = ((red > 0) == (mask[:, 0] > 0.5)) | ~clear
    assert right.float().mean() > 0.98
    assert (right.float().mean((1, 2)) > 0.9).all()
    area = mask.sum((1, 2, 3)) / INPUT_SIZE**2
    # An object of the crop's size, seen whole in windows of 1 to REACH crops
    whole = math.pi * (0.3 * REACH) ** 2 / 4
    assert area.max() < 1.05 * whole
    assert ((area > 0.95 * whole / REACH**2) & (area < whole)).float().mean() > 0.5
    assert area.max() / area[area > 0.95 * whole / REACH**2].min() > 3
    # Some windows have lost it in part
    cut = torch.cat([mask[..., [0, -1]].flatten(1), mask[..., [0, -1], :].flatten(1)], dim=1)
    assert 0.05 < (cut.amax(1) > 0.5).float().mean() < 0.5


def test_right_masks_cost_nothing_and_the_overlap_is_soft() -> None:
    mask = disk(0.5, 32)[None, 3:]
    terms = compute_terms(200 * (mask - 0.5), mask, 2.0)
    assert terms["entropy"].value < 1e-6
    assert terms["overlap"].value == pytest.approx(0, abs=1e-6)
    assert terms["overlap"].weight == 2
    # Everything at one half: intersection |M| / 2, union (|M| + N) / 2
    n = mask.numel()
    area = float(mask.sum())
    half = compute_terms(torch.zeros_like(mask), mask, 1.0)
    assert half["entropy"].value == pytest.approx(math.log(2))
    expected = 1 - (area / 2 + 1) / (area + n / 2 - area / 2 + 1)
    assert half["overlap"].value == pytest.approx(expected)


def test_mirror_images_get_mirrored_masks() -> None:
    head = MaskHead(2).eval()
    image = torch.rand(3, 3, 80, 80, generator=torch_generator(4)) * 2 - 1
    category = torch.tensor([0, 1, 0])
    first, other = estimate_masks(head, image, category), estimate_masks(head, image.flip(-1), category)  # fmt: skip
    assert first.shape == (3, 1, INPUT_SIZE, INPUT_SIZE)
    torch.testing.assert_close(other, first.flip(-1))
    assert (first - first.mean()).abs().max() > 1e-3


@pytest.mark.usefixtures("toy")
def test_photographs_are_kept_only_as_far_as_there_is_memory() -> None:
    detections = load_detections("toy")
    read: list[int] = []

    def detection(row: int) -> object:
        read.append(row)
        return detections[row]

    regions = Regions(detection, 2 * 4 * REGION_SIZE**2)  # type: ignore[arg-type]
    first = torch.stack([regions[row] for row in (0, 1, 2)])
    again = torch.stack([regions[row] for row in (0, 1, 2)])
    assert read == [0, 1, 2, 2]
    assert_equal(first, again)
    # A disk of radius 14 in the middle of its region, which spans REACH times its padded box
    region = first[0]
    side = 2.5 * 30
    share = math.pi * 14**2 / side**2
    assert float((region[3] > 127).float().mean()) == pytest.approx(share, rel=0.03)


@pytest.mark.slow
def test_a_head_learns_to_see_disks() -> None:
    head = MaskHead()
    generator = torch_generator(0)
    # Disks of one color on other colors
    pixels = [disk(float(r)) for r in torch.linspace(0.25, 0.4, 8)]
    background = torch.rand(8, 3, 1, 1, generator=generator)
    regions = torch.stack(
        [
            torch.cat([torch.where(x[3:] > 0, x[:3], c), x[3:]])
            for x, c in zip(pixels, background, strict=True)
        ]
    )
    kept = Regions(lambda row: row, 0)  # type: ignore[arg-type,return-value]
    kept._kept = dict(enumerate((255 * regions).to(torch.uint8)))
    lessons = MaskLessons(head, kept, torch.zeros(8, dtype=torch.int64), weight=1, seed=0)
    losses = [float(lessons(step, torch.arange(8), 1.0)["mask_head_overlap"]) for step in range(60)]
    assert min(losses[:3]) > 0.6
    assert sum(losses[-5:]) / 5 < 0.3


@pytest.mark.usefixtures("toy")
def test_the_mesh_estimator_does_not_depend_on_the_mask_head() -> None:
    run("--iters", "3")
    taught = state()
    RUN.rename("taught")
    run("--iters", "3", "--mask_weight", "0")
    for name in ("generator", "optimizer", "student"):
        assert_equal(state()[name], taught[name])
    assert "mask_head" not in state()
    assert load_model(RUN / "model.pth", CPU).mask_head is None
    loaded = load_model("taught/model.pth", CPU).mask_head
    assert loaded is not None
    assert_equal(dict(loaded.state_dict()), dict(taught["mask_head"]))


@pytest.mark.usefixtures("toy")
def test_an_interrupted_run_teaches_the_same_head() -> None:
    run("--iters", "4", "--lr_decay_every", "9")
    whole = state()
    RUN.rename("whole")
    run("--iters", "2", "--lr_decay_every", "9")
    run("--iters", "4", "--lr_decay_every", "9")
    for name in ("mask_head", "mask_head_optimizer"):
        assert_equal(state()[name], whole[name])


@pytest.mark.usefixtures("toy")
def test_a_damaged_head_is_told() -> None:
    run("--iters", "1")
    content = checkpoint.load(RUN / "model.pth")
    for head in ({}, {"inner.bias": torch.zeros(3)}, 5):
        checkpoint.save(RUN / "model.pth", content | {"mask_head": head})
        with pytest.raises(UserError, match=r"model\.pth: its mask head is damaged"):
            load_model(RUN / "model.pth", CPU)
