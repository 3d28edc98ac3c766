"""Refinement of poses against masks and maps."""

import torch
from torch import Tensor

from data.definitions import VIEW_PRIORS
from geometry import quaternion
from geometry.camera import from_vector, to_vector
from geometry.sphere_mesh import SphereMesh
from pipeline.poses.candidates import Candidates
from pipeline.poses.photographs import Photographs
from pipeline.poses.refinement import Painted, Refinement, Targets, refine
from tests.pipeline.poses import pose_world


def labels() -> Tensor:
    return torch.nn.functional.one_hot(pose_world.part_labels(), 3).float()


class Parts:
    """Guides by the true parts."""

    weight = 2.0

    def maps(self, photographs: Photographs) -> Tensor:
        return photographs.parts

    def expected(self, rows: Tensor, index: Tensor, chosen: Candidates) -> Tensor:
        return labels().expand(*chosen.choice.shape, -1, -1)


def test_refinement_approaches_the_true_rotation() -> None:
    truth = pose_world.poses([30.0, 140.0], [15.0, 0.0])
    targets = Targets(*pose_world.draw(truth, 32), weight=1.0)
    start = to_vector(pose_world.poses([48.0, 122.0], [10.0, 10.0]))
    painted = Painted(
        pose_world.body().expand(2, -1, -1), SphereMesh().faces, labels().expand(2, -1, -1)
    )
    moved = from_vector(refine(painted, targets, start, VIEW_PRIORS["bird"], steps=30))
    before = quaternion.angle_between(from_vector(start).rotation, truth.rotation)
    after = quaternion.angle_between(moved.rotation, truth.rotation)
    assert (after < 0.7 * before).all()


def test_each_candidate_is_refined_against_its_own_photograph() -> None:
    truth = pose_world.poses([30.0, 140.0], [15.0, 0.0])
    masks, parts = pose_world.draw(truth, 128)
    photographs = Photographs(torch.tensor([4, 7]), masks[:, None].expand(-1, 4, -1, -1), parts)
    near = pose_world.poses([40.0, 130.0], [10.0, 10.0])
    chosen = Candidates(near, torch.zeros(2, dtype=torch.int64)).repeat(2)
    refinement = Refinement(pose_world.body()[None], SphereMesh().faces, VIEW_PRIORS["bird"], 20)
    moved = refinement.move(photographs, torch.zeros(2, 2), chosen, Parts())
    before = quaternion.angle_between(chosen.pose.rotation, truth.rotation[:, None])
    after = quaternion.angle_between(moved.pose.rotation, truth.rotation[:, None])
    assert (after.diagonal() < before.diagonal()).all()
    for i in range(2):
        row = torch.tensor([i])
        alone = refinement.move(photographs.select(row), row[:, None], chosen.select(row), Parts())
        assert torch.equal(alone.pose.rotation[0], moved.pose.rotation[i])


def test_maps_without_a_gradient_leave_the_mask_to_decide() -> None:
    """Maps that differ by a lot, but equally in all poses, must not drown what the mask says."""
    truth = pose_world.poses([30.0], [15.0])
    masks, _ = pose_world.draw(truth, 32)
    start = to_vector(pose_world.poses([45.0], [10.0]))
    painted = Painted(pose_world.body()[None], SphereMesh().faces, torch.zeros(1, 962, 1))
    found = [
        refine(painted, Targets(masks, x, 1.0), start, VIEW_PRIORS["bird"], 20)
        for x in (torch.zeros(1, 1, 32, 32), torch.full((1, 1, 32, 32), 0.9))
    ]
    torch.testing.assert_close(*found, atol=0.02, rtol=0)
