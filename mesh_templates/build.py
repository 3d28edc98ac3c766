"""Builds the category templates from their signed distances, and the spheres deformed onto them.

Examples:
  # Rewrite classes/<name>.obj of every template and uvsphere_{16,31,63}rings.obj
  python -m mesh_templates.build
  # Rewrite two templates and look at them from all sides
  python -m mesh_templates.build --only bird1,horse1 --preview output/templates
"""

from collections.abc import Sequence
from pathlib import Path

import trimesh

from geometry.uv_sphere import SEGMENTS, UVSphere, uv_sphere
from mesh_templates import animals, preview, vehicles
from mesh_templates.primitives import mesh_from_distance
from utils import cli
from utils.files import atomic_path
from utils.progress import print_line

FOLDER = Path(__file__).parent
SHAPES = animals.SHAPES | vehicles.SHAPES


def write_template(mesh: trimesh.Trimesh, path: Path) -> None:
    """Writes vertices and faces in object space (x lateral, front -y, z up)."""
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in mesh.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    _write_lines(lines, path)


def write_sphere(sphere: UVSphere, path: Path) -> None:
    """Writes the sphere with its texture coordinates, in the order of its vertices and faces."""
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in sphere.vertices]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in sphere.uvs]
    for face, uvs in zip(sphere.faces + 1, sphere.face_uvs + 1, strict=True):
        lines.append("f " + " ".join(f"{i}/{j}" for i, j in zip(face, uvs, strict=True)))
    _write_lines(lines, path)


def build(name: str, preview_folder: Path | None) -> None:
    """Writes classes/<name>.obj and, with a folder for it, a picture."""
    shape = SHAPES[name]()
    mesh = mesh_from_distance(shape)
    path = FOLDER / "classes" / f"{name}.obj"
    write_template(mesh, path)
    print_line(f"wrote {path}")
    if preview_folder:
        preview_folder.mkdir(parents=True, exist_ok=True)
        preview.draw(mesh, shape).save(preview_folder / f"{name}.png")


def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    parser = cli.Parser(prog="python -m mesh_templates.build", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help="comma-separated templates (default: all)")
    parser.add_argument("--preview", type=Path, metavar="DIR", help="also write shaded pictures")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the templates named on the command line, or everything."""
    options = build_parser().parse_args(argv)
    names = options.only.split(",") if options.only else list(SHAPES)
    unknown = [name for name in names if name not in SHAPES]
    if unknown:
        raise cli.UserError(f"--only: no template {unknown[0]!r}; available: {', '.join(SHAPES)}.")
    for name in names:
        build(name, options.preview)
    if not options.only:
        for rings in SEGMENTS:
            write_sphere(uv_sphere(rings), FOLDER / f"uvsphere_{rings}rings.obj")


def _write_lines(lines: list[str], path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
