"""Readers of .obj, .off, .ply and .stl files: positions and polygons, without a library that guesses.

Text is read byte by byte, so that comments in any encoding do no harm. All raise a ValueError that says
what is wrong, and never reserve memory for more than the file holds.
"""

import re
from collections.abc import Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_CUT = "it ends before all of its vertices and faces, so it was cut"


class Polygons(NamedTuple):
    """Surface of polygons.

    Attributes:
        vertices: (V, 3) float64.
        corners: (sum of counts,) int64 indices of the vertices, polygon after polygon.
        counts: (P,) int64 corners of each polygon.
    """

    vertices: NDArray[np.float64]
    corners: NDArray[np.int64]
    counts: NDArray[np.int64]


def read_obj(content: bytes) -> Polygons:
    """Reads Wavefront .obj; a negative index counts back from the vertices above its line."""
    vertices, faces = [], []
    for line in content.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
        keyword, *words = line.partition(b"#")[0].split() or [b""]
        if keyword == b"v":
            vertices.append(_position(words))
        elif keyword == b"f":
            numbers = [int(word.partition(b"/")[0]) for word in words]
            if 0 in numbers:
                raise ValueError("a face has the index 0; those of .obj files begin with 1")
            faces.append([i - 1 if i > 0 else len(vertices) + i for i in numbers])
    return _polygons(vertices, faces)


def read_off(content: bytes) -> Polygons:
    """Reads the Object File Format; columns beyond positions and corners are left out."""
    rows = (line.partition(b"#")[0].split() for line in content.splitlines())
    lines = iter([row for row in rows if row])
    header, *numbers = next(lines, [b""])
    if not re.fullmatch(rb"(ST)?C?N?OFF", header) or numbers[:1] == [b"BINARY"]:
        raise ValueError(f"the first line is {header[:20].decode('latin-1')!r}, expected OFF")
    numbers = numbers or next(lines, [])
    num_vertices, num_faces = int(numbers[0]), int(numbers[1])
    vertices = [_position(row) for row in islice(lines, num_vertices)]
    faces = []
    for row in islice(lines, num_faces):
        size = int(row[0])
        if not 0 <= size < len(row):
            raise ValueError(f"a face says that it has {size} corners, and lists {len(row) - 1}")
        faces.append([int(word) for word in row[1 : size + 1]])
    if len(vertices) + len(faces) < num_vertices + num_faces:
        raise ValueError(_CUT)
    return _polygons(vertices, faces)


def read_stl(content: bytes) -> Polygons:
    """Reads .stl, binary or text; whatever follows the triangles of a binary file is left out."""
    count = int.from_bytes(content[80:84], "little")
    if len(content) >= 84 and 84 + 50 * count <= len(content):
        record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])
        points = np.frombuffer(content, record, count, 84)["corners"].reshape(-1, 3)
    elif content.lstrip()[:5].lower() == b"solid":
        rows = re.findall(rb"\bvertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)", content)
        points = np.array([[float(word) for word in row] for row in rows]).reshape(-1, 3)
        if len(points) % 3 or b"endsolid" not in content:
            raise ValueError("it ends within a solid, so it was cut")
    else:
        raise ValueError("it has fewer triangles than it says, so it was cut or is no .stl file")
    # Triangles that meet share their corners only by position
    vertices, corners = np.unique(points.astype(np.float64), axis=0, return_inverse=True)
    return Polygons(vertices, corners.ravel(), np.full(len(points) // 3, 3))


def read_ply(content: bytes) -> Polygons:
    """Reads .ply, text or binary of either byte order, with polygons of any number of corners."""
    tables = _ply_tables(content)
    vertices = _ply_columns(tables, "xyz")
    if vertices is None:
        raise ValueError("its vertices have no x, y and z")
    face = tables.get("face", {})
    if "tristrips" in tables:
        raise ValueError(
            "its faces are triangle strips, which are not read. Export it again from MeshLab, as "
            "triangles"
        )
    if not face:
        raise ValueError(
            f"it is a point cloud: {len(vertices)} points, no faces. Make a surface of it with: "
            "python remesh.py --from_points"
        )
    faces = face.get("vertex_indices") or face.get("vertex_index")
    if faces is None:
        raise ValueError("its faces have no vertex_indices")
    return _polygons(vertices, faces)


def read_ply_points(content: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Reads positions (N, 3) and, if there are any, normals (N, 3) of the vertices of a .ply file."""
    tables = _ply_tables(content)
    positions = _ply_columns(tables, "xyz")
    if positions is None:
        raise ValueError("its vertices have no x, y and z")
    return positions, _ply_columns(tables, ("nx", "ny", "nz"))


_PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2"},
    **{"uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_MAX_UNIFORM = 64  # numbers in a list of a table that is read at once
_PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


class _Property(NamedTuple):
    """Column of a table: the types of its numbers and, if they are lists, of their lengths."""

    name: str
    kind: str
    length: str | None = None


class _Element(NamedTuple):
    """Table of a .ply file."""

    name: str
    num_rows: int
    properties: list[_Property]


class _Source:
    """The numbers of a .ply file, read from front to back.

    Attributes:
        position: of the next byte, or of the next word of a text.
    """

    def __init__(self, body: bytes, order: str) -> None:
        self.order, self.position = order, 0
        self.content = body if order else body.split()

    def take(self, kinds: list[str], count: int) -> list[NDArray]:
        """Returns the next `count` rows as columns of the given types."""
        if not count:
            return [np.zeros(0)] * len(kinds)
        if self.order:
            record = np.dtype([(str(i), self.order + kind) for i, kind in enumerate(kinds)])
            if self.position + count * record.itemsize > len(self.content):
                raise ValueError(_CUT)
            rows = np.frombuffer(self.content, record, count, self.position)  # type: ignore[arg-type]
            self.position += rows.nbytes
            return [rows[name] for name in rows.dtype.names or ()]
        end = self.position + count * len(kinds)
        if end > len(self.content):
            raise ValueError(_CUT)
        rows = np.array(self.content[self.position : end], np.float64).reshape(count, len(kinds))
        self.position = end
        for kind, column in zip(kinds, rows.T, strict=True):
            if kind[0] in "iu" and not ((column == np.floor(column)) & (abs(column) < 2**53)).all():
                raise ValueError("a fraction stands where a whole number is expected")
        return list(rows.T)


def _ply_header(content: bytes) -> tuple[_Source, list[_Element]]:
    """Returns the numbers behind the header, and the tables that they make up."""
    head, end, body = content.partition(b"end_header")
    if not head.startswith(b"ply") or not end:
        raise ValueError("it has no header of the .ply format")
    order, elements = None, []
    for line in head.decode("latin-1").splitlines():
        match line.split():
            case ["format", name, _]:
                order = _PLY_ORDERS[name]
            case ["element", name, count]:
                elements.append(_Element(name, int(count), []))
            case ["property", "list", length, kind, name]:
                column = _Property(name, _PLY_TYPES[kind], _PLY_TYPES[length])
                elements[-1].properties.append(column)
            case ["property", kind, name]:
                elements[-1].properties.append(_Property(name, _PLY_TYPES[kind]))
    if order is None:
        raise ValueError("its header names no format")
    body = body[body.index(b"\n") + 1 :]
    return _Source(body, order), elements


def _ply_tables(content: bytes) -> dict[str, dict[str, list[NDArray]]]:
    """Reads all tables of a .ply file, by the names of elements and columns."""
    source, elements = _ply_header(content)
    return {element.name: _ply_table(source, element) for element in elements}


def _ply_columns(
    tables: dict[str, dict[str, list[NDArray]]], names: Sequence[str]
) -> NDArray[np.float64] | None:
    """Returns columns (N, 3) of the vertices; None unless all are there."""
    vertex = tables.get("vertex", {})
    if not set(names) <= vertex.keys():
        return None
    return np.stack([np.ravel(vertex[name]) for name in names], axis=1).astype(np.float64)


def _ply_table(source: _Source, element: _Element) -> dict[str, list[NDArray]]:
    """Reads a table; columns of lists have an array per row, those of numbers a single one."""
    if not element.num_rows or not element.properties:
        return {}
    start = source.position
    try:
        return _ply_uniform(source, element)
    except ValueError:  # lists of different lengths
        source.position = start
    rows = [_ply_row(source, element) for _ in range(element.num_rows)]
    names = [column.name for column in element.properties]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _ply_uniform(source: _Source, element: _Element) -> dict[str, list[NDArray]]:
    """Reads a table at once; a ValueError unless its lists are as long as those of the first row."""
    start = source.position
    first = _ply_row(source, element)
    source.position = start
    if any(not 0 < len(values) <= _MAX_UNIFORM for values in first):
        raise ValueError("lists of other lengths")
    kinds = []
    for column, values in zip(element.properties, first, strict=True):
        kinds += [column.length] if column.length else []
        kinds += [column.kind] * len(values)
    columns, table = iter(source.take(kinds, element.num_rows)), {}
    for column, values in zip(element.properties, first, strict=True):
        if column.length and (next(columns) != len(values)).any():
            raise ValueError("lists of other lengths")
        rows = np.stack([*islice(columns, len(values))], axis=1)
        table[column.name] = list(rows) if column.length else [rows]
    return table


def _ply_row(source: _Source, element: _Element) -> list[NDArray]:
    """Reads one row: an array of one number, or of a list's numbers, per column."""
    values = []
    for column in element.properties:
        size = 1 if column.length is None else int(source.take([column.length], 1)[0][0])
        if size < 0:
            raise ValueError(f"a list says that it has {size} numbers")
        values.append(source.take([column.kind], size)[0])
    return values


def _position(words: Sequence[bytes]) -> list[float]:
    """Returns the three coordinates that a line begins with."""
    if len(words) < 3:
        raise ValueError("a vertex has fewer than three coordinates")
    return [float(word) for word in words[:3]]


def _polygons(vertices: object, faces: Sequence[Sequence[int] | NDArray]) -> Polygons:
    """Puts rows of positions and lists of corners together."""
    counts = np.fromiter(map(len, faces), np.int64, len(faces))
    corners = np.fromiter(chain.from_iterable(faces), np.int64, int(counts.sum()))
    return Polygons(np.array(vertices, np.float64).reshape(-1, 3), corners, counts)
