"""Alignment of the object space of a template, which is arbitrary where it is learned, with the true one."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from geometry import camera, quaternion
from geometry.camera import Pose, project

NEAR = 30.0  # degrees within which turns agree
DIRECTIONS = 16  # in which the extents of projections are compared
GAUSS_NEWTON_STEPS = 8
DIFFERENCE = 0.01  # between the unknowns from which slopes are taken


class Frame(NamedTuple):
    """The object space of a template relative to the true one.

    Attributes:
        turn: (4,) rotation from the true object space to that of the template.
        reversed: whether all depths are reversed, which the silhouettes do not show.
    """

    turn: Tensor
    reversed: bool

    def apply(self, rotation: Tensor) -> Tensor:
        """Returns rotations (..., 4) of the template as rotations of the true object."""
        seen = quaternion.complementary(rotation) if self.reversed else rotation
        return quaternion.multiply(seen, self.turn.expand_as(seen))


def common_frame(estimated: Tensor, true: Tensor) -> Frame:
    """Returns the frame in which most rotations agree with the true ones.

    Each image proposes the turn that makes its own rotation right; the proposal that most images share
    is averaged over these (largest eigenvector of the sum of q q^T).

    Args:
        estimated: (N, 4) unit quaternions.
        true: (N, 4) unit quaternions.
    """
    frames: dict[int, Frame] = {}
    # Silhouettes do not show the sign of the depth, so that both are tried
    for flipped in (False, True):
        seen = quaternion.complementary(estimated) if flipped else estimated
        # The turn that would make each image right, and how many others agree with it
        turns = quaternion.multiply(quaternion.conjugate(seen), true)
        agreeing = quaternion.angle_between(turns[:, None], turns) < NEAR
        votes, best = agreeing.sum(dim=1).max(dim=0)
        # The mean of unit quaternions of arbitrary sign
        shared = turns[agreeing[best]].double()
        mean = torch.linalg.eigh(shared.T @ shared).eigenvectors[:, -1]
        frames.setdefault(int(votes), Frame(mean.to(estimated.dtype), flipped))
    return frames[max(frames)]


class Similarity(NamedTuple):
    """A map from the object space of a template to the true one.

    Attributes:
        frame: the axes.
        scale: () true units per unit of the template.
        offset: (3,) where the origin of the template lies, true units.
    """

    frame: Frame
    scale: Tensor
    offset: Tensor

    def apply(self, vertices: Tensor) -> Tensor:
        """Moves vertices (..., V, 3) of a mesh that is symmetric about x = 0.

        A frame of reversed depths mirrors the mesh as well, which such a mesh does not show.
        """
        back = quaternion.conjugate(self.frame.turn)
        return self.scale * quaternion.rotate(back, vertices) + self.offset


def common_similarity(
    pose: Pose,
    rotation: Tensor,
    scale: Tensor,
    vertices: Tensor,
    project_true: Callable[[Tensor, Tensor], Tensor],
) -> Similarity:
    """Returns the map for which most true cameras see a template as its estimated poses show it.

    The least-squares solution over the images whose rotations agree in the common frame: projections are
    to reach as far in each of 16 directions (Gauss-Newton, from that frame). The scales of both cameras
    alone would not do, since they differ in perspective, which widens outlines.

    Args:
        pose: N estimated poses.
        rotation: (N, 4) true unit quaternions.
        scale: (N, 1) true scales, screen units per true unit.
        vertices: (V, 3) of the template.
        project_true: maps vertices (V, 3) in true space and rows (n,) to screen space (n, V, 2 or more).
    """
    frame = common_frame(pose.rotation, rotation)
    degrees = quaternion.angle_between(frame.apply(pose.rotation), rotation)
    near = torch.nonzero(degrees < NEAR)[:, 0]
    estimated = _extents(project(vertices.expand(len(near), -1, -1), camera.select(pose, near)))

    def similarity(unknown: Tensor) -> Similarity:
        # A small rotation vector, scale, offset
        twist = quaternion.normalize(torch.cat([unknown.new_ones(1), unknown[:3] / 2]))
        turn = quaternion.multiply(twist, frame.turn)
        return Similarity(frame._replace(turn=turn), unknown[3], unknown[4:])

    def residual(unknown: Tensor) -> Tensor:
        moved = similarity(unknown).apply(vertices)
        return (_extents(project_true(moved, near)) - estimated).flatten()

    # The problem is linear but for perspective and the choice of the outermost vertices
    ratio = (pose.scale / scale)[near].median()
    unknown = torch.cat([ratio.new_zeros(3), ratio[None], ratio.new_zeros(3)])
    steps = DIFFERENCE * torch.eye(7).to(unknown)
    for _ in range(GAUSS_NEWTON_STEPS):
        # Central differences, of so nearly linear a problem, are slopes
        ahead, behind = ([residual(unknown + sign * h) for h in steps] for sign in (1, -1))
        jacobian = (torch.stack(ahead, dim=1) - torch.stack(behind, dim=1)) / (2 * DIFFERENCE)
        step = torch.linalg.lstsq(jacobian.double(), residual(unknown).double()[:, None]).solution
        unknown = unknown - step[:, 0].to(unknown.dtype)
    return similarity(unknown)


def _extents(screen: Tensor) -> Tensor:
    """Returns how far points (N, V, 2 or more) reach on the screen in some directions, (N, D)."""
    angles = torch.arange(DIRECTIONS) * (2 * torch.pi / DIRECTIONS)
    directions = torch.stack([angles.cos(), angles.sin()]).to(screen)
    return (screen[..., :2] @ directions).amax(dim=1)
