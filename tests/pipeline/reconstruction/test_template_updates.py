"""Templates that follow the meshes: means in closed form, and their way through a run."""

from pathlib import Path

import pytest
import torch

from geometry.camera import Pose
from geometry.sphere_mesh import SphereMesh
from pipeline.reconstruction.companions.template_updates import TemplateUpdates
from pipeline.reconstruction.dataset import Labels
from pipeline.reconstruction.model import Scene
from tests.pipeline.reconstruction.toy import run, state
from tests.runs import assert_equal
from utils import checkpoint
from utils.seeding import torch_generator

RUN = Path("checkpoints_recon/toy_singletpl")
# Displacements that begin at the sphere, and losses that don't depend on the length of the run
PLAIN = ("--shape_head", "convolution", "--final_sharpness", "7000")
LENGTH = ("--lr_decay_every", "9", "--lr", "0.003", *PLAIN)


def scene_and_labels() -> tuple[Scene, Labels]:
    """Two templates of one mode each, and four images: three of the first template."""
    sphere, generator = SphereMesh(), torch_generator(3)
    templates = torch.stack([sphere.vertices, 2 * sphere.vertices])
    modes = torch.randn(2, 1, len(sphere.vertices), 3, generator=generator)
    template = torch.tensor([0, 0, 1, 0])
    zeros = torch.zeros(4, dtype=torch.int64)
    pose = Pose(torch.ones(4, 1), torch.zeros(4, 2), torch.ones(4, 4) / 2, torch.ones(4, 1))
    shape = torch.tensor([[1.0], [0.5], [-1.0], [0.0]])
    return Scene(sphere, templates, torch.ones(1, 1, 1), modes), Labels(pose, template, zeros, zeros.bool(), shape)  # fmt: skip


def test_what_meshes_have_in_common_goes_into_the_template() -> None:
    scene, labels = scene_and_labels()
    own = torch.randn(4, len(scene.sphere.vertices), 3, generator=torch_generator(4))
    vertices = scene.shapes(labels) + own
    before = vertices.clone()
    updates = TemplateUpdates(scene, interval=2)
    updates.observe(0, labels.select(torch.tensor([0, 1])), vertices[:2])
    assert torch.equal(updates.scene.templates, scene.templates)
    updates.observe(1, labels.select(torch.tensor([2, 3])), vertices[2:])
    # Each template moves by the mean of its own images
    rows = torch.tensor([0, 1, 3])
    moved = updates.scene.templates - scene.templates
    torch.testing.assert_close(moved, torch.stack([own[rows].mean(0), own[2]]))
    # The displacements lose what the templates have won, so that no vertex moves
    assert torch.equal(vertices, before)
    left = vertices - updates.scene.shapes(labels)
    torch.testing.assert_close(left[rows].mean(0), torch.zeros_like(own[0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(updates.scene.shapes(labels) + left, before)


def test_templates_of_no_image_stay() -> None:
    scene, labels = scene_and_labels()
    updates = TemplateUpdates(scene, interval=1)
    one = labels.select(torch.tensor([2]))
    updates.observe(0, one, scene.shapes(one) + 1)
    assert torch.equal(updates.scene.templates[0], scene.templates[0])
    torch.testing.assert_close(updates.scene.templates[1], scene.templates[1] + 1)


@pytest.mark.usefixtures("toy")
def test_an_interrupted_run_has_the_same_templates() -> None:
    # Updates after steps 2 and 4, an interruption in between
    run("--iters", "5", "--update_template_every", "2", *LENGTH)
    whole = state()
    stored = checkpoint.load(RUN / "model.pth")
    RUN.rename("whole")
    run("--iters", "3", "--update_template_every", "2", *LENGTH)
    run("--iters", "5", "--update_template_every", "2", *LENGTH)
    for name in ("generator", "learned_templates"):
        assert_equal(state()[name], whole[name])
    # The model file has them beside those that the poses belong to
    learned = stored["learned_templates"]
    assert torch.equal(learned, whole["learned_templates"]["templates"])
    assert (learned - stored["templates"]).abs().max() > 1e-4
    assert float(whole["learned_templates"]["counts"].sum()) == 3


@pytest.mark.usefixtures("toy")
def test_an_update_moves_no_prediction_and_only_what_is_pinned_notices() -> None:
    run("--iters", "2", *LENGTH)
    plain = state()
    RUN.rename("plain")
    # The update after the last step comes too late for the network
    run("--iters", "2", "--update_template_every", "2", *LENGTH)
    assert_equal(state()["generator"], plain["generator"])
    assert "learned_templates" not in plain
    RUN.rename("late")
    run("--iters", "2", "--update_template_every", "1", *LENGTH)
    changed = state()["generator"]
    assert any(not torch.equal(changed[name], plain["generator"][name]) for name in changed)
