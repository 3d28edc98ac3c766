"""The UV sphere as a deformable mesh: topology tables, symmetry and displacement maps."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor, nn

from geometry.operators import face_neighbors
from geometry.uv_maps import average_poles, circular_pad, symmetric_extension
from geometry.uv_sphere import uv_sphere

# An exact pole has no tangent; the published artifacts use these (normal, tangent, bitangent)
NORTH_FRAME = ((0, 1, 0), (-(0.5**0.5), 0, -(0.5**0.5)), (-(0.5**0.5), 0, 0.5**0.5))
SOUTH_FRAME = ((0, -1, 0), (-1, 0, 0), (0, 0, -1))
_ROUGHNESS = 1e-4  # weight of differences between texels against errors of vertices


class SphereMesh(nn.Module):
    """Sphere whose vertices are moved by displacement maps, symmetric about x = 0.

    Attributes:
        vertices: (V, 3) unit sphere in object space; 962 vertices with 31 rings, 3970 with 63.
        faces: (F, 3) counter-clockwise seen from outside.
        uvs: (U, 2) texture coordinates in [0, 1].
        face_uvs: (F, 3) indices into `uvs`.
        topology_map: (V, 2) mean texture coordinate of a vertex, x right and y down in [-1, 1].
        tangent_frames: (V, 3, 3) rows normal, tangent, bitangent.
        neighbors: (F, 3) faces across the edges of a face.
        negative: (N,) vertices with x < 0.
        positive: (N,) their mirror images, in the same order.
        zero: (Z,) vertices on the mirror plane.
        nonnegative: (N + Z,) `positive`, then `zero`.
        poles: (2,) north and south vertex.
        grid: (rings - 1, segments) vertices by ring (from the south) and segment.
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor
    face_uvs: Tensor
    topology_map: Tensor
    tangent_frames: Tensor
    neighbors: Tensor
    negative: Tensor
    positive: Tensor
    zero: Tensor
    nonnegative: Tensor
    poles: Tensor
    grid: Tensor
    _grid_rank: Tensor

    def __init__(self, rings: int = 31) -> None:
        super().__init__()
        self.rings = rings
        sphere = uv_sphere(rings)
        # Half of the vertices is free; the others follow by symmetry
        negative, positive, zero = _mirror_pairs(sphere.vertices)
        order = np.concatenate([sphere.grid.ravel(), sphere.poles])
        tables = {
            "vertices": sphere.vertices,
            "faces": sphere.faces,
            "uvs": sphere.uvs,
            "face_uvs": sphere.face_uvs,
            "topology_map": _topology_map(sphere.faces, sphere.uvs[sphere.face_uvs]),
            "tangent_frames": _tangent_frames(sphere.vertices, sphere.poles),
            "neighbors": face_neighbors(sphere.faces),
            "negative": negative,
            "positive": positive,
            "zero": zero,
            "nonnegative": np.concatenate([positive, zero]),
            "poles": sphere.poles,
            "grid": sphere.grid,
            "_grid_rank": np.argsort(order),
        }
        for name, table in tables.items():
            tensor = torch.from_numpy(np.ascontiguousarray(table))
            self.register_buffer(name, tensor.float() if tensor.is_floating_point() else tensor)

    def deform(self, displacement_map: Tensor) -> Tensor:
        """Deforms the sphere by a displacement map.

        Args:
            displacement_map: (B, 3, H, W) offsets along normal, tangent and bitangent, in units of the
                sphere's radius; only the half u in [1/4, 3/4], where x >= 0, is used.

        Returns:
            (B, V, 3) object space, exactly symmetric about x = 0.

        Raises:
            ValueError: if the map does not have three channels.
        """
        if displacement_map.ndim != 4 or displacement_map.shape[1] != 3:
            got = tuple(displacement_map.shape)
            raise ValueError(f"displacement_map: expected shape (B, 3, H, W), got {got}.")
        # Only the nonnegative vertices read the map; the others are mirrored
        local = self._sample(displacement_map)  # (B, N + Z, 3)
        frames = self.tangent_frames[self.nonnegative]
        offset = torch.einsum("bvi,vij->bvj", local, frames)
        return self.complete(self.vertices[self.nonnegative] + offset)

    def half_displacement_map(self, vertices: Tensor) -> Tensor:
        """Returns maps that deform the sphere into given symmetric meshes: `deform`, inverted.

        Vertices lie halfway between columns of texels, so that texels are not determined by them:
        of the maps that fit, those that differ least from texel to texel are taken. They miss the
        vertices of templates by some thousandths of the radius.

        Args:
            vertices: (B, V, 3) object space.

        Returns:
            (B, 3, S, S/2) the half x >= 0 of displacement maps, one texel per segment of the sphere.
        """
        rows = self.grid.shape[1]
        columns = rows // 2
        half = self.nonnegative
        frames = self.tangent_frames[half].double()
        offsets = (vertices - self.vertices)[:, half].double()
        local = torch.einsum("bvj,vij->bvi", offsets, frames)
        # How the vertices read each texel, and how each texel differs from its neighbors
        unit = torch.eye(rows * columns, dtype=torch.double, device=half.device)
        texels = unit.view(-1, 1, rows, columns)
        reading = self._sample(symmetric_extension(average_poles(texels)))[..., 0].T
        across, down = texels.diff(dim=3).flatten(1).T, texels.diff(dim=2).flatten(1).T
        rough = torch.cat([across, down])
        normal = reading.T @ reading + _ROUGHNESS * rough.T @ rough
        maps = torch.linalg.solve(normal, reading.T @ local)  # (B, S S/2, 3)
        return maps.transpose(1, 2).unflatten(2, (rows, columns)).to(vertices.dtype)

    def symmetrize(self, vertices: Tensor) -> Tensor:
        """Averages mirror pairs of vertices (B, V, 3) and keeps each on its own side of x = 0."""
        # Average each pair on the side x >= 0
        half = (vertices[..., self.positive, :] + _reflect(vertices[..., self.negative, :])) / 2
        half = torch.where(half[..., :1] < 0, _reflect(half), half)
        return self.complete(torch.cat([half, vertices[..., self.zero, :]], dim=-2))

    def laplacian(self, vertices: Tensor) -> Tensor:
        """Returns each vertex minus the mean of its grid neighbors: (B, V, C) to (B, V, C).

        The neighbors lie on the same ring and on the same segment; a pole has its whole ring.
        """
        # Every grid vertex has four neighbors; the outermost rings border on the poles
        grid = vertices[..., self.grid, :]  # (B, rings - 1, segments, C)
        poles = vertices[..., self.poles, :]
        row = grid[..., :1, :, :].shape
        north, south = (poles[..., i, :][..., None, None, :].expand(row) for i in (0, 1))
        above = torch.cat([grid[..., 1:, :, :], north], dim=-3)
        below = torch.cat([south, grid[..., :-1, :, :]], dim=-3)
        around = grid.roll(1, dims=-2) + grid.roll(-1, dims=-2)
        # Back to the order of the vertices
        inner = grid - (above + below + around) / 4
        rings = torch.stack([grid[..., -1, :, :], grid[..., 0, :, :]], dim=-3).mean(-2)
        ordered = torch.cat([inner.flatten(-3, -2), poles - rings], dim=-2)
        return ordered[..., self._grid_rank, :]

    def edge_length(self, vertices: Tensor) -> Tensor:
        """Returns the mean |difference| along rings plus that along segments, a scalar.

        The mean is over meshes, grid edges and coordinates of (B, V, 3); edges to the poles are left out.
        """
        closed = torch.cat([self.grid, self.grid[:, :1]], dim=1)  # the seam counts twice, as in UV
        grid = vertices[..., closed, :]
        around = grid[..., :, 1:, :] - grid[..., :, :-1, :]
        along = grid[..., 1:, :, :] - grid[..., :-1, :, :]
        return around.abs().mean() + along.abs().mean()

    def vertex_map(self, values: Tensor, size: int) -> Tensor:
        """Spreads values at the vertices (B, V, C) over texture space: (B, C, size, size), row 0 at v = 1."""
        texels = (torch.arange(size, device=values.device, dtype=values.dtype) + 0.5) / size * 2 - 1
        return self._spread(values, torch.stack(torch.meshgrid(texels, texels, indexing="xy"), -1))

    def resample(self, values: Tensor, other: "SphereMesh") -> Tensor:
        """Carries values at the vertices (B, V, C) to those of a sphere of other rings, (B, V', C).

        Bilinear in texture space, so that a resampled mesh is the same surface in smaller faces.
        """
        if other.rings == self.rings:
            return values
        return self._spread(values, other.topology_map[None])[:, :, 0].transpose(1, 2)

    def _spread(self, values: Tensor, where: Tensor) -> Tensor:
        """Values (B, C, h, w) at points (h, w, 2) of texture space, x right and y down in [-1, 1]."""
        shape = (len(values), 1, self.grid.shape[1], values.shape[-1])
        north, south = (values[:, self.poles[i], None, None].expand(shape) for i in (0, 1))
        rows = torch.cat([north, values[:, self.grid.flip(0)], south], dim=1)
        # Rows and columns are even in v and u; the first column follows the last
        closed = torch.cat([rows, rows[:, :, :1]], dim=2).permute(0, 3, 1, 2)
        return nn.functional.grid_sample(
            closed, where.expand(len(values), -1, -1, -1), align_corners=True
        )

    def _sample(self, displacement_map: Tensor) -> Tensor:
        """Map values (B, N + Z, 3) at the nonnegative vertices, bilinear and wrapping around."""
        width = displacement_map.shape[-1]
        # One column of padding on both sides, hence other coordinates
        x, y = self.topology_map[self.nonnegative].unbind(-1)
        stretched = (x + 1 + 1 / width) * width / (width + 1) - 1  # u W - 1/2 in original pixels
        where = torch.stack([stretched, y], dim=-1)[None, None]
        values = nn.functional.grid_sample(
            circular_pad(displacement_map, 1),
            where.expand(len(displacement_map), -1, -1, -1).to(displacement_map.dtype),
            align_corners=True,
        )
        return values[:, :, 0].transpose(1, 2)

    def complete(self, half: Tensor) -> Tensor:
        """Returns all vertices (..., V, 3), symmetric about x = 0, from the `nonnegative` ones (..., N + Z, 3)."""
        count = len(self.positive)
        sides, middle = half[..., :count, :], half[..., count:, :]
        # Vertices on the mirror plane stay on it
        middle = middle * middle.new_tensor([0.0, 1.0, 1.0])
        full = torch.cat([sides, middle, _reflect(sides)], dim=-2)
        rank = torch.argsort(torch.cat([self.nonnegative, self.negative]))
        return full[..., rank, :]


def _reflect(vertices: Tensor) -> Tensor:
    """Mirror image in the plane x = 0."""
    return vertices * vertices.new_tensor([-1.0, 1.0, 1.0])


def _mirror_pairs(
    vertices: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Vertices with x < 0, their mirror images and those with x = 0."""
    negative = np.flatnonzero(vertices[:, 0] < -1e-9)
    zero = np.flatnonzero(np.abs(vertices[:, 0]) <= 1e-9)
    # The partner of a vertex is the one nearest to its mirror image
    distance, positive = KDTree(vertices).query(vertices[negative] * (-1, 1, 1))
    assert distance.max() < 1e-9, "the sphere is not symmetric"
    return negative, np.asarray(positive, np.int64), zero


def _topology_map(faces: NDArray[np.int64], uvs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean texture coordinate of each vertex over its corners, u = 1 counting as 0."""
    # Corners at the seam have u = 0 or 1, which must not be averaged to 1/2
    corners = np.stack([np.where(uvs[..., 0] == 1, 0.0, uvs[..., 0]), uvs[..., 1]], axis=-1)
    total = np.zeros((faces.max() + 1, 2))
    np.add.at(total, faces.ravel(), corners.reshape(-1, 2))
    mean: NDArray[np.float64] = total / np.bincount(faces.ravel()).astype(np.float64)[:, None]
    return (2 * mean - 1) * np.array([1.0, -1.0])


def _tangent_frames(vertices: NDArray[np.float64], poles: NDArray[np.int64]) -> NDArray[np.float64]:
    """Orthonormal rows (normal, tangent, bitangent) of each vertex."""
    # The tangent runs around the axis of the poles
    tangent: NDArray[np.float64] = np.cross(vertices, np.array([0.0, 1.0, 0.0]))
    tangent[poles] = 1.0
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    frames = np.stack([vertices, tangent, np.cross(vertices, tangent)], axis=1)
    frames[poles] = (NORTH_FRAME, SOUTH_FRAME)
    return frames
