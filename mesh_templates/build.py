"""Builds the category templates from their signed distances.

Examples:
  # Rewrite every mesh_templates/classes/<name>.obj
  python -m mesh_templates.build
  # Rewrite one and look at it from all sides
  python -m mesh_templates.build --only bird1 --preview output/templates
"""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import trimesh

from mesh_templates import preview
from mesh_templates.primitives import Shape, mesh_from_distance

FOLDER = Path(__file__).parent / "classes"


def all_shapes() -> dict[str, Callable[[], Shape]]:
    """Every template by its file name, such as "bird1"."""
    shapes: dict[str, Callable[[], Shape]] = {}
    for module in ("mesh_templates.animals", "mesh_templates.vehicles"):
        if importlib.util.find_spec(module):
            shapes |= import_module(module).SHAPES
    return shapes


def write_obj(mesh: trimesh.Trimesh, path: Path) -> None:
    """Writes vertices and faces in object space (x lateral, front -y, z up)."""
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in mesh.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the shapes named on the command line, or all."""
    shapes = all_shapes()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAMES", help="comma-separated names (default: all)")
    parser.add_argument("--preview", type=Path, metavar="DIR", help="also write shaded pictures")
    options = parser.parse_args(argv)
    names = options.only.split(",") if options.only else list(shapes)
    unknown = sorted(set(names) - set(shapes))
    if unknown:
        parser.error(f"unknown template {', '.join(unknown)}; there are {', '.join(shapes)}")
    for name in names:
        shape = shapes[name]()
        mesh = mesh_from_distance(shape)
        write_obj(mesh, FOLDER / f"{name}.obj")
        if options.preview:
            options.preview.mkdir(parents=True, exist_ok=True)
            preview.draw(mesh, shape).save(options.preview / f"{name}.png")


if __name__ == "__main__":
    main()
