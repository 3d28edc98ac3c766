"""Step 2 with modes of shape."""

from collections.abc import Mapping

import pytest
import torch
from PIL import Image
from torch import Tensor

import pose_optimization_step2
from data.cache import folders, pose_files, template_files
from geometry.camera import project, to_vector
from geometry.distances import hard_iou
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.contact_sheet import TILE
from pipeline.poses.photographs import Photographs
from pipeline.poses.shapes import collection, learning
from pipeline.poses.shapes.collection import ShapeFit
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world
from tests.pipeline.poses.test_step2 import AZIMUTHS, COMMAND, ELEVATIONS, chosen, truth  # noqa: F401
from tests.runs import assert_equal
from utils.files import read_json

MESH = SphereMesh()
FAST = [*COMMAND, "--semantic_rounds", "1", "--refine_steps", "1", "--keep_share", "1"]


@pytest.fixture
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is fitted, but not well."""
    monkeypatch.setattr(learning, "STEPS", 2)
    monkeypatch.setattr(collection, "STEPS", 3)


def shapes_of(*options: str) -> pose_files.FittedShapes:
    pose_optimization_step2.main([*FAST, "--shape_modes", "2", *options])
    found = chosen().shapes
    assert found is not None
    return found


@pytest.mark.usefixtures("truth", "_few_steps")
def test_shapes_change_no_pose_and_fit_better() -> None:
    pose_optimization_step2.main(FAST)
    without = chosen()
    assert without.shapes is None
    assert without.fitted_pose is without.pose
    shapes = shapes_of("--visualize")
    found = chosen()
    assert torch.equal(to_vector(found.pose), to_vector(without.pose))
    assert torch.equal(found.iou, without.iou)
    assert shapes.modes.shape == (1, 3, 962, 3)
    assert shapes.coefficients.shape == (6, 3)
    figures = read_json("cache/toy/metrics.json")["step2"]["singletpl"]
    assert figures["mean_shape_iou"] == pytest.approx(shapes.iou.mean().item())
    # The stored overlaps are those of the stored shapes in the stored poses
    templates = template_files.load_templates("bird", "singletpl")
    masks, _ = pose_world.draw(pose_world.poses(AZIMUTHS, ELEVATIONS), 24)
    screen = project(found.vertices(templates, torch.arange(6)), found.fitted_pose)
    covered = rasterize(screen, MESH.faces, 24, soft=False).coverage[:, 0]
    torch.testing.assert_close(hard_iou(covered, masks), shapes.iou[:, 0], atol=0.15, rtol=0)
    with Image.open("output/toy_poses_singletpl.png") as sheet:
        assert sheet.size == (6 * (2 * TILE + 2) + 2, TILE + 4)


@pytest.mark.usefixtures("truth", "_few_steps")
def test_shapes_do_not_depend_on_the_batch_size() -> None:
    assert_equal(shapes_of("--batch_size", "1"), shapes_of("--batch_size", "4"))


@pytest.mark.slow
@pytest.mark.usefixtures("truth")
def test_shapes_do_not_depend_on_the_number_of_processes() -> None:
    assert_equal(shapes_of(), shapes_of("--gpu_ids", "cpu,cpu"))


@pytest.mark.usefixtures("truth", "_few_steps")
def test_an_interrupted_fit_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def interrupted(self: ShapeFit, photographs: Photographs) -> Mapping[str, Tensor]:
        calls.extend(photographs.rows.tolist())
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, photographs)

    measure = ShapeFit.measure
    expected = shapes_of("--batch_size", "1")
    monkeypatch.setattr(ShapeFit, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shapes_of("--batch_size", "1")
    assert_equal(shapes_of("--batch_size", "1"), expected)
    assert calls == [0, 1, 2, 2, 3, 4, 5]
    assert not list(folders.cache_folder("toy").glob(".step2*"))
