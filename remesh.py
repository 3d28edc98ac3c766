"""Stage 0: deforms the UV sphere onto the modeled templates of each category.

Examples:
  # All categories, one template each
  python remesh.py --mode singletpl

  # All templates of two categories, over two GPUs
  python remesh.py --mode multitpl --classes bird,car --gpu_ids 0,1

  # Meshes of your own: bird1.obj, bird2.obj, ..., here with y up and looking along z
  python remesh.py --mode multitpl --classes bird --templates my_meshes --up y --front z
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data.definitions import CATEGORIES, MODELED_TEMPLATES, MODES
from utils import cli

AXES = ("x", "-x", "y", "-y", "z", "-z")


def categories(text: str) -> tuple[str, ...]:
    """Option type: `all`, or names of categories separated by commas."""
    names = CATEGORIES if text == "all" else tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in CATEGORIES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown category {unknown[0]!r}; expected all, or some of {', '.join(CATEGORIES)}"
        )
    return names


def sphere(text: str) -> str:
    """Option type: the only sphere on which the later stages work."""
    if text != "autodetect" and "31rings" not in text:
        raise argparse.ArgumentTypeError(
            f"expected autodetect or a sphere with 31rings in its name, got {text!r}"
        )
    return text


# fmt: off
def build_parser() -> argparse.ArgumentParser:
    """Returns the parser; its defaults are the only ones."""
    parser = cli.Parser(description=__doc__)
    group = parser.add_argument_group("what")
    group.add_argument("--mode", choices=MODES, required=True, help="singletpl: the first template of a category; multitpl: all of them")
    group.add_argument("--classes", type=categories, default="all", metavar="LIST", help="categories, separated by commas (default: %(default)s)")
    group.add_argument("--mesh_path", type=sphere, default="autodetect", metavar="SPHERE", help="sphere to deform, 31 rings (default: %(default)s)")

    group = parser.add_argument_group("templates")
    group.add_argument("--templates", type=Path, default=MODELED_TEMPLATES, metavar="DIR", help="folder of <category><n>.obj, .off, .ply, .stl, .glb or .gltf; of another than the default, the results go to cache/own_templates/ (default: %(default)s)")
    group.add_argument("--up", choices=AXES, help="axis of the files that points up; write --up=-z for negative ones (default: y for .glb and .gltf, whose format says so, else z)")
    group.add_argument("--front", choices=AXES, help="axis of the files towards which objects look; write --front=-x (default: z for .glb and .gltf, else -y)")

    group = parser.add_argument_group("fitting")
    group.add_argument("--image_resolution", type=cli.positive_int, default=256, metavar="PIXELS", help="size of the silhouettes (default: %(default)s)")
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
    if not args.symmetric:
        parser.error("--no-symmetric: templates are always symmetric; leave the option out.")
    if args.up and args.front and args.up[-1] == args.front[-1]:
        parser.error(f"--up {args.up} --front {args.front}: expected two different axes.")
    # Only now: PyTorch takes seconds to load, --help and mistakes need not wait for it
    from pipeline.remeshing import stage
    from rendering.rasterizer import set_backend
    from utils import distributed
    from utils.run_directory import configure_logging

    devices = distributed.resolve_devices(args.gpu_ids)
    set_backend(args.rasterizer)
    configure_logging(None)
    names = stage.Config.__dataclass_fields__
    config = stage.Config(**{name: getattr(args, name) for name in names})
    distributed.launch(stage.run, devices, config)


if __name__ == "__main__":
    cli.run(main)
