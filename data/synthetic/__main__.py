"""Makes a synthetic collection with complete ground truth: datasets/<name>/ for tests, demos and measurements.

The templates of a category are deformed into individuals, painted with procedural textures and
photographed before procedural backgrounds, or, with --multiview, rendered from several sides without one, in
the layout of ShapeNet's renderings. The same options always give the same files.

Examples:
  python -m data.synthetic --category bird --num_images 300
  python -m data.prepare --dataset synthetic_bird

  # Five views of each of 60 cars, a third of which is held out
  python -m data.synthetic --multiview --dataset multiview_car --category car --num_shapes 60 --num_views 5 --image_size 128
  python -m data.prepare --dataset multiview_car
"""

import argparse
from collections.abc import Sequence

from data.definitions import CATEGORIES
from utils import cli

NUM_IMAGES, NUM_SHAPES, NUM_VIEWS = 300, 60, 5
LEAST_SHAPES, LEAST_VIEWS = 3, 2


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    parser = cli.Parser(prog="python -m data.synthetic", description=__doc__)
    parser.add_argument("--dataset", type=cli.run_name, default=None, metavar="NAME", help="name of the folder in datasets/ (default: synthetic_<category> or multiview_<category>)")
    parser.add_argument("--category", choices=CATEGORIES, required=True, metavar="CATEGORY", help=f"what to show: {', '.join(CATEGORIES)}")
    parser.add_argument("--num_images", type=cli.positive_int, metavar="N", help=f"number of photographs (default: {NUM_IMAGES})")
    parser.add_argument("--multiview", action="store_true", help="render each object from several sides")
    parser.add_argument("--num_shapes", type=cli.positive_int, metavar="N", help=f"with --multiview, number of objects (default: {NUM_SHAPES})")
    parser.add_argument("--num_views", type=cli.positive_int, metavar="N", help=f"with --multiview, renderings of each (default: {NUM_VIEWS})")
    parser.add_argument("--image_size", type=cli.pixels, default=256, metavar="PIXELS", help="longest side of a photograph (default: %(default)s)")
    parser.add_argument("--seed", type=cli.non_negative_int, default=1, metavar="N", help="seed of all random numbers (default: %(default)s)")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the collection that the command line describes."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_options(parser, args)
    prefix = "multiview" if args.multiview else "synthetic"
    args.dataset = args.dataset or f"{prefix}_{args.category}"
    # Only now: PyTorch takes a second to load, --help and mistakes need not wait for it
    from data.synthetic.collection import SyntheticConfig, make_collection
    from data.synthetic.multiview import MultiviewConfig, make_renderings
    from utils.options import build
    from utils.run_directory import configure_logging

    configure_logging(None)
    if args.multiview:
        make_renderings(build(MultiviewConfig, vars(args)))
    else:
        make_collection(build(SyntheticConfig, vars(args)))


def check_options(parser: cli.Parser, args: argparse.Namespace) -> None:
    """Refuses options of the other kind of collection, and fills in numbers."""
    foreign = ("num_images",) if args.multiview else ("num_shapes", "num_views")
    for name in foreign:
        if getattr(args, name) is not None:
            parser.error(f"--{name} is {'not ' if args.multiview else ''}for --multiview")
    args.num_images = args.num_images or NUM_IMAGES
    args.num_shapes = args.num_shapes or NUM_SHAPES
    args.num_views = args.num_views or NUM_VIEWS
    # One of three objects is held out, and one view has no other to be compared with
    if args.num_shapes < LEAST_SHAPES or args.num_views < LEAST_VIEWS:
        parser.error(
            f"--multiview: expected {LEAST_SHAPES} objects and {LEAST_VIEWS} views or more"
        )


if __name__ == "__main__":
    cli.run(main)
