"""Operators on triangle meshes: edges and neighbors, subdivision, Laplacian, volume and flatness."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Points = NDArray[np.float64]


def face_neighbors(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the (F, 3) faces across the edges of each face of a closed mesh, largest index first.

    Raises:
        ValueError: if an edge does not have exactly two faces.
    """
    # Sorted by their vertices, the two copies of an edge become neighbors
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    order = np.lexsort(edges.T)
    pairs = edges[order].reshape(-1, 2, 2)
    if (pairs[:, 0] != pairs[:, 1]).any() or (pairs[1:, 0] == pairs[:-1, 0]).all(1).any():
        raise ValueError("faces: expected a closed mesh with two faces at every edge.")
    # Each face is the owner of three edges, and their other faces are its neighbors
    first, second = (order // 3).reshape(-1, 2).T
    owner, neighbor = np.concatenate([first, second]), np.concatenate([second, first])
    table = neighbor[np.argsort(owner, kind="stable")].reshape(-1, 3)
    return np.sort(table, axis=1)[:, ::-1]


def edge_table(faces: Array) -> Array:
    """Returns the edges (E, 4) of a closed mesh.

    Columns: vertices a < b, the face in which a comes before b, the face in which b comes before a.
    """
    # A closed, oriented mesh has every edge once in each direction
    directed = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    owner = np.repeat(np.arange(len(faces)), 3)
    other = {(b, a): face for (a, b), face in zip(directed.tolist(), owner.tolist(), strict=True)}
    rows = [
        (a, b, face, other[a, b])
        for (a, b), face in zip(directed.tolist(), owner.tolist(), strict=True)
        if a < b
    ]
    return np.array(rows)


def split_edges(
    vertices: Points, faces: NDArray[np.int64], length: float
) -> tuple[Points, NDArray[np.int64]]:
    """Halves the edges longer than `length` until there are none; the surface stays closed.

    Returns:
        The old vertices followed by the new ones (V, 3), and the faces (F, 3).
    """
    while True:
        # Lengths of the edges, each once
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, inverse = np.unique(edges, axis=0, return_inverse=True)
        ends = vertices[unique]
        long = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) > length
        if not long.any():
            return vertices, faces
        # A new vertex in the middle of every long edge, shared by both faces
        middle = np.full(len(unique), -1)
        middle[long] = len(vertices) + np.arange(long.sum())
        vertices = np.concatenate([vertices, ends[long].mean(axis=1)])
        faces = _split_faces(faces, middle[inverse.reshape(-1, 3)])


def volume(vertices: Tensor, faces: Tensor) -> Tensor:
    """Returns the volume inside a closed mesh (V, 3); positive if its faces look outward."""
    # Signed volumes of the tetrahedra between the origin and the faces (divergence theorem)
    a, b, c = vertices[faces].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum() / 6


def stiffness_matrix(faces: Tensor, num_vertices: int, stiffness: float) -> Tensor:
    """Returns the identity plus `stiffness` times the graph Laplacian, (V, V)."""
    # Closed meshes hold every edge in both directions, so the adjacency is symmetric
    adjacency = torch.zeros(num_vertices, num_vertices, device=faces.device)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        adjacency[faces[:, i], faces[:, j]] = 1.0
    laplacian = torch.diag(adjacency.sum(1)) - adjacency
    return torch.eye(num_vertices, device=faces.device) + stiffness * laplacian


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Returns unit normals (V, 3) of a mesh: the mean of those of the adjacent faces, by area.

    Args:
        vertices: (V, 3).
        faces: (F, 3) counter-clockwise seen from outside; a vertex of faces without area gets +z.
    """
    a, b, c = vertices[faces].unbind(1)
    areas = (b - a).cross(c - a, dim=-1)  # (F, 3), twice the area long
    sums = torch.zeros_like(vertices).index_add_(0, faces.flatten(), areas.repeat_interleave(3, 0))
    flat = sums.norm(dim=-1, keepdim=True) < 1e-12
    return F.normalize(torch.where(flat, sums.new_tensor([0.0, 0.0, 1.0]), sums), dim=-1, eps=0.0)


def flatness(vertices: Tensor, faces: Tensor, neighbors: Tensor) -> Tensor:
    """Returns (B,): the sum over edges of (1 - cos)^2, the angle being that of the two normals.

    Args:
        vertices: (B, V, 3).
        faces: (F, 3) vertex indices.
        neighbors: (F, 3) indices of the faces across the three edges of each face.
    """
    # Unit normals of all faces, then the cosines with their three neighbors
    a, b, c = vertices[:, faces].unbind(2)
    normals = F.normalize((b - a).cross(c - a, dim=-1), dim=-1)  # (B, F, 3)
    cosines = (normals[:, :, None] * normals[:, neighbors]).sum(-1)
    return 0.5 * (cosines - 1).square().sum((1, 2))  # every edge is counted from both sides


def half_space_penalty(vertices: Tensor, positive: Tensor) -> Tensor:
    """Returns how far the vertices with the indices `positive` lie at x < 0, on average; a scalar."""
    return F.relu(-vertices[:, positive, 0]).mean()


def _split_faces(faces: NDArray[np.int64], middle: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cuts faces (F, 3) at the middles (F, 3) of their edges 01, 12, 20 (-1 = not split)."""
    pieces = []
    split = middle >= 0
    # One template of triangles for each combination of split edges
    for pattern in range(8):
        flags = [bool(pattern >> k & 1) for k in range(3)]
        chosen = (split == flags).all(axis=1)
        # Rotate the corners so that unsplit edges come last (one split edge: 01; two: 01 and 12)
        turn = next((k for k in range(3) if flags[k] and not flags[k - 1]), 0)
        a, b, c = np.roll(faces[chosen], -turn, axis=1).T
        ab, bc, ca = np.roll(middle[chosen], -turn, axis=1).T
        triangles = {
            0: [(a, b, c)],
            1: [(a, ab, c), (ab, b, c)],
            2: [(ab, b, bc), (a, ab, bc), (a, bc, c)],
            3: [(a, ab, ca), (ab, b, bc), (bc, c, ca), (ab, bc, ca)],
        }[sum(flags)]
        pieces += [np.stack(triangle, axis=1) for triangle in triangles]
    return np.concatenate(pieces)
