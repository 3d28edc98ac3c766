"""Normals of scattered points: planes through their neighborhoods, turned to one side of the surface.

Hoppe et al. 1992, "Surface Reconstruction from Unorganized Points".
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import KDTree

NUM_NEIGHBORS = 16  # through which a plane is laid
NUM_LINKS = 10  # neighbors to which an orientation may spread
LEAST_COST = 1e-6  # of a link: a zero in a sparse matrix is none

Points = NDArray[np.float64]
Costs = NDArray[np.float64]
Indices = NDArray[np.int64]


def estimate_normals(points: Points) -> Points:
    """Returns unit normals (N, 3) of distinct points (N, 3), which look outward.

    A normal is the direction in which the nearest neighbors extend least.
    """
    neighbors = np.asarray(KDTree(points).query(points, min(NUM_NEIGHBORS, len(points)))[1])
    offsets = points[neighbors] - points[neighbors].mean(1, keepdims=True)
    normals = np.linalg.eigh(offsets.swapaxes(1, 2) @ offsets)[1][:, :, 0]
    return orient(points, normals, neighbors[:, 1 : NUM_LINKS + 1])


def orient(points: Points, normals: Points, neighbors: Indices) -> Points:
    """Returns the normals with signs that agree between neighbors and look outward.

    Signs spread over a minimum spanning tree of the neighborhood graph, in each of its pieces from the
    point that lies outermost.

    Args:
        points: (N, 3) distinct positions.
        normals: (N, 3) unit vectors of any sign.
        neighbors: (N, k) indices of points near each point.
    """
    # The neighborhood graph, in both directions
    count = len(points)
    links = np.repeat(np.arange(count), neighbors.shape[1]), neighbors.ravel()
    cost = _link_cost(points, normals, *links)
    graph = csr_matrix((cost, links), shape=(count, count))
    parents = _parents(points, minimum_spanning_tree(graph.maximum(graph.T)))
    # The signs along the way to the root multiply; steps double in length until all have arrived
    signs = np.where((normals * normals[parents]).sum(1) < 0, -1.0, 1.0)
    while (parents[parents] != parents).any():
        signs, parents = signs * signs[parents], parents[parents]
    # Outward in each piece: the flux of x - center through a closed surface is three times its volume
    flux = signs * (normals * (points - points.mean(0))).sum(1)
    outward = np.where(np.bincount(parents, flux, count) < 0, -1.0, 1.0)
    return normals * (signs * outward[parents])[:, None]


def disagreement(points: Points, normals: Points) -> float:
    """Returns the share of points (N, 3) whose normal is opposite to that of the nearest other one."""
    nearest = np.asarray(KDTree(points).query(points, 2)[1])[:, 1]
    return float(((normals * normals[nearest]).sum(1) < 0).mean())


def _link_cost(points: Points, normals: Points, first: Indices, second: Indices) -> Costs:
    """Returns how unlikely links (L,) are to stay on the surface, in (0, 2].

    The sum of 1 - |cosine| of the two normals, and the sine of the steeper angle between the link and
    the two tangent planes, which is large from one side of a thin wing to the other.
    """
    link = points[second] - points[first]
    link = link / np.linalg.norm(link, axis=1, keepdims=True)
    a, b = normals[first], normals[second]
    slope = np.maximum(np.abs((link * a).sum(1)), np.abs((link * b).sum(1)))
    return np.maximum(1 - np.abs((a * b).sum(1)) + slope, LEAST_COST)


def _parents(points: Points, tree: csr_matrix) -> Indices:
    """Returns the parent (N,) of every point in a forest; the roots are their own."""
    # The root of a piece is the point farthest from the middle of all
    distances = np.linalg.norm(points - points.mean(0), axis=1)
    pieces, labels = connected_components(tree, directed=False)
    order = np.lexsort((-distances, labels))
    roots = order[np.searchsorted(labels[order], np.arange(pieces))]
    # A common node above all roots makes one tree of the forest, which is walked in one go
    count, (above, below), data = len(points), tree.nonzero(), np.ones(tree.nnz)
    top = np.full(pieces, count)
    ends = np.r_[above, top], np.r_[below, roots]
    whole = csr_matrix((np.r_[data, np.ones(pieces)], ends), shape=(count + 1, count + 1))
    parents = breadth_first_order(whole, count, directed=False)[1][:count].astype(np.int64)
    parents[roots] = roots
    return parents
