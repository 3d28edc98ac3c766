"""Templates whose vertices know their part."""

import pytest
import torch

from geometry.camera import project
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.semantic_template import normalize_parts, splat
from rendering.rasterizer import rasterize
from tests.pipeline.poses import pose_world


@pytest.fixture
def mesh() -> SphereMesh:
    return SphereMesh()


def test_splatting_is_the_adjoint_of_rendering(mesh: SphereMesh) -> None:
    screen = project(pose_world.body()[None], pose_world.poses([30.0], [15.0]))
    parts = torch.rand(1, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    colors = torch.rand(1, 962, 2, generator=torch.Generator().manual_seed(1))
    raster = rasterize(screen, mesh.faces, 24, attributes=colors, soft=False)
    assert raster.attributes is not None
    rendered = (raster.attributes * parts).sum()
    torch.testing.assert_close((splat(screen, mesh.faces, parts) * colors).sum(), rendered)


def test_semantic_template_finds_the_known_parts(mesh: SphereMesh) -> None:
    pose = pose_world.poses([0.0, 30.0, 200.0, 90.0], [0.0, 15.0, 30.0, -20.0])
    _, parts = pose_world.draw(pose, 64)
    screen = project(pose_world.body().expand(4, -1, -1), pose)
    sums = splat(screen, mesh.faces, parts).sum(dim=0, keepdim=True)
    probabilities = normalize_parts(sums, mesh)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(1, 962))
    assert torch.equal(probabilities[:, mesh.negative], probabilities[:, mesh.positive])
    seen = sums[0].sum(dim=-1) > 0.5
    found = probabilities[0].argmax(dim=-1)
    assert (found == pose_world.part_labels())[seen].float().mean() > 0.9
