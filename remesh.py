"""Stage 0: deforms the UV sphere onto the modeled templates of each category.

Examples:
  # All categories, one template each
  python remesh.py --mode singletpl

  # All templates of two categories, over two GPUs
  python remesh.py --mode multitpl --classes bird,car --gpu_ids 0,1

  # No mesh at all: learned from the masks and colors of a prepared collection
  python remesh.py --mode singletpl --classes car --from_photographs photocars

  # The same template turned, once the picture has shown where it looks
  python remesh.py --mode singletpl --classes car --from_photographs photocars --front y

  # Meshes of your own: bird1.obj, bird2.obj, ..., here with y up and looking along z
  python remesh.py --mode multitpl --classes bird --templates my_meshes --up y --front z

  # Points of a scanner, with or without normals
  python remesh.py --mode singletpl --classes bird --from_points scan.ply
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data.definitions import CATEGORIES, MODELED_TEMPLATES, MODES, VIEWS, is_word
from utils import cli

AXES = ("x", "-x", "y", "-y", "z", "-z")
NUM_TEMPLATES = 4  # that are learned in mode multitpl
POISSON_DEPTH = 7


def categories(text: str) -> tuple[str, ...]:
    """Option type: `all` for the 13 known categories, or any names separated by commas."""
    # A name given twice would be fitted twice
    names = CATEGORIES if text == "all" else tuple(dict.fromkeys(text.split(",")))
    wrong = [name for name in names if not is_word(name)]
    if wrong:
        raise argparse.ArgumentTypeError(
            f"{wrong[0]!r} is no name of a category; expected all, or words such as bird,polar_bear"
        )
    return names


def sphere(text: str) -> str:
    """Option type: the only sphere on which the later stages work."""
    if text != "autodetect" and "31rings" not in text:
        raise argparse.ArgumentTypeError(
            f"expected autodetect or a sphere with 31rings in its name, got {text!r}"
        )
    return text


def depth(text: str) -> int:
    """Option type: depth of the grid for surfaces through points."""
    value = cli.positive_int(text)
    if not 4 <= value <= 8:
        raise argparse.ArgumentTypeError(f"expected 4 to 8, got {value}")
    return value


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser; its defaults are the only ones."""
    parser = cli.Parser(description=__doc__)
    group = parser.add_argument_group("what")
    group.add_argument("--mode", choices=MODES, required=True, help="singletpl: the first template of a category; multitpl: all of them")
    group.add_argument("--classes", type=categories, default="all", metavar="LIST", help="categories, separated by commas; of any name with --templates or --from_photographs (default: %(default)s)")
    group.add_argument("--mesh_path", type=sphere, default="autodetect", metavar="SPHERE", help="sphere to deform, 31 rings (default: %(default)s)")

    group = parser.add_argument_group("templates")
    group.add_argument("--templates", type=Path, default=MODELED_TEMPLATES, metavar="DIR", help="folder of <category><n>.obj, .off, .ply, .stl, .glb or .gltf; of another than the default, the results go to cache/own_templates/ (default: %(default)s)")
    group.add_argument("--up", choices=AXES, help="axis of the files that points up; write --up=-z for negative ones (default: y for .glb and .gltf, whose format says so, else z)")
    group.add_argument("--front", choices=AXES, help="axis of the files towards which objects look; write --front=-x (default: z for .glb and .gltf, else -y)")

    group = parser.add_argument_group("without templates")
    group.add_argument("--from_photographs", type=cli.dataset_name, metavar="DATASET", help="learn the templates from a prepared collection; --up and --front turn what was learned")
    group.add_argument("--num_templates", type=cli.positive_int, metavar="N", help=f"templates to learn in mode multitpl (default: {NUM_TEMPLATES})")
    group.add_argument("--views", choices=VIEWS, help="from where the photographs show the objects (default: as its preparation has recorded)")
    group.add_argument("--colors", action=argparse.BooleanOptionalAction, default=True, help="compare colors too, not only masks (default: yes)")
    group.add_argument("--mirror", action="store_true", help="swap front and back of what was learned")
    cli.add_silhouette_options(group)

    group = parser.add_argument_group("from points")
    group.add_argument("--from_points", type=Path, metavar="FILE", help="make the template of one category from points on its surface: .ply, .xyz (3 columns, or 6 with normals) or .npz (points, normals)")
    group.add_argument("--poisson_depth", type=depth, metavar="D", help=f"the surface is found on a grid of 2^D cells per edge, D = 4 to 8 (default: {POISSON_DEPTH})")
    group.add_argument("--normals", choices=["file", "estimate"], help="those of the file, or from the neighborhoods of points (default: those of the file, if it has any)")

    group = parser.add_argument_group("fitting")
    group.add_argument("--image_resolution", type=cli.pixels, default=256, metavar="PIXELS", help="size of the silhouettes (default: %(default)s)")
    group.add_argument("--symmetric", action=argparse.BooleanOptionalAction, default=True, help="keep left and right alike (the only mode)")
    group.add_argument("--schedule", choices=["fast", "reference"], default="fast", help="fast: seconds per template; reference: the published optimization, hours on a CPU (default: %(default)s)")
    group.add_argument("--step_factor", type=cli.positive_float, default=1.0, metavar="FACTOR", help="factor on the number of steps (default: %(default)s)")
    group.add_argument("--min_iou", type=cli.fraction, default=0.8, metavar="IOU", help="silhouette overlap below which a result does not take the place of present templates (default: %(default)s)")
    cli.add_common_options(parser)
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Parses, checks and starts the stage."""
    parser = build_parser()
    args = parser.parse_args(argv)
    # Accepted because published commands have it, but there is only one way to fit
    if not args.symmetric:
        parser.error("--no-symmetric: templates are always symmetric; leave the option out.")
    if args.up and args.front and args.up[-1] == args.front[-1]:
        parser.error(f"--up {args.up} --front {args.front}: expected two different axes.")
    check_learning(parser, args)
    check_points(parser, args)
    # Only now: PyTorch takes seconds to load, --help and mistakes need not wait for it
    from rendering.rasterizer import set_backend
    from utils import distributed
    from utils.run_directory import configure_logging

    if args.from_photographs:
        from pipeline.template_learning import stage
    else:
        from pipeline.remeshing import stage
    # Learning needs all photographs at once, so that it runs in a single process
    devices = distributed.resolve_devices(args.gpu_ids)[: 1 if args.from_photographs else None]
    set_backend(args.rasterizer)
    configure_logging(None)
    # Both stages read their options by name from the same parser
    names = stage.Config.__dataclass_fields__
    config = stage.Config(**{name: getattr(args, name) for name in names})
    distributed.launch(stage.run, devices, config)


def check_learning(parser: cli.Parser, args: argparse.Namespace) -> None:
    """Refuses options of learning without it, and fills in the number of templates."""
    cli.check_silhouette_options(parser, args)
    # An option without effect is a mistake: the user expects it to do something
    if not args.from_photographs:
        for name in ("num_templates", "views", "mirror"):
            if getattr(args, name):
                parser.error(f"--{name} is for templates that --from_photographs learns.")
        if args.silhouette != "raster":
            parser.error("--silhouette is for templates that --from_photographs learns.")
        return
    if args.mode == "singletpl" and args.num_templates not in (None, 1):
        parser.error(f"--num_templates {args.num_templates}: write --mode multitpl.")
    args.num_templates = args.num_templates or (1 if args.mode == "singletpl" else NUM_TEMPLATES)


def check_points(parser: cli.Parser, args: argparse.Namespace) -> None:
    """Refuses options of points without them, several sources of a template, and fills in the depth."""
    if args.from_points is None:
        for name in ("poisson_depth", "normals"):
            if getattr(args, name):
                parser.error(f"--{name} is for a template that is made --from_points.")
    else:
        if args.from_photographs or args.templates != MODELED_TEMPLATES:
            other = "from_photographs" if args.from_photographs else "templates"
            parser.error(f"--from_points and --{other}: expected one source of templates.")
        # A file of points holds one object
        if args.mode != "singletpl":
            parser.error(
                f"--from_points gives one template: write --mode singletpl, not {args.mode}."
            )
        if len(args.classes) != 1:
            parser.error(
                "--from_points gives the template of one category: say which by --classes."
            )
    args.poisson_depth = args.poisson_depth or POISSON_DEPTH


if __name__ == "__main__":
    cli.run(main)
