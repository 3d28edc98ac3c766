"""Points on surfaces that are known exactly."""

import numpy as np

TORUS_RADIUS, TUBE = 1.0, 0.4


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sphere(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns points (N, 3), evenly distributed on the unit sphere, and their outward normals."""
    points = random(seed).normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, points.copy()


def torus(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The same on a torus around the z axis."""
    generator = random(seed)
    around, across = generator.random((2, 4 * count)) * 2 * np.pi
    # The outer side has more area than the inner one
    density = (TORUS_RADIUS + TUBE * np.cos(across)) / (TORUS_RADIUS + TUBE)
    kept = np.flatnonzero(generator.random(4 * count) < density)[:count]
    around, across = around[kept], across[kept]
    ring = np.stack([np.cos(around), np.sin(around), 0 * around], axis=1)
    normals = ring * np.cos(across)[:, None] + [0, 0, 1] * np.sin(across)[:, None]
    return TORUS_RADIUS * ring + TUBE * normals, normals


def sphere_error(points: np.ndarray) -> np.ndarray:
    """Returns the distances (N,) from the unit sphere."""
    return np.abs(np.linalg.norm(points, axis=1) - 1)


def torus_error(points: np.ndarray) -> np.ndarray:
    """Returns the distances (N,) from the torus."""
    return np.abs(np.hypot(np.hypot(*points[:, :2].T) - TORUS_RADIUS, points[:, 2]) - TUBE)
