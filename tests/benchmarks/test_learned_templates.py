"""Judging shapes whose axes are arbitrary."""

import numpy as np
import pytest

from benchmarks.learned_templates import best_chamfer
from geometry.distances import chamfer_distance
from geometry.sphere_mesh import SphereMesh
from tests.pipeline.poses import pose_world


@pytest.mark.slow
@pytest.mark.parametrize("swapped", [False, True])
def test_the_best_frame_undoes_a_turn_and_a_swap_of_front_and_back(swapped: bool) -> None:
    faces = SphereMesh().faces.numpy()
    body = pose_world.body().double().numpy()
    c, s = np.cos(np.radians(63)), np.sin(np.radians(63))
    turned = body @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T * (1, -1 if swapped else 1, 1)
    true = body, faces
    assert chamfer_distance((turned, faces), true) > 4
    assert best_chamfer(turned, true) < 0.2 + chamfer_distance(true, true)
