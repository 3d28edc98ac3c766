"""Makes a synthetic collection with complete ground truth: datasets/<name>/ for tests, demos and measurements.

The templates of a category are deformed into individuals, painted with procedural textures and
photographed before procedural backgrounds. The same options always give the same files.

Examples:
  python -m data.synthetic --category bird --num_images 300
  python -m data.prepare --dataset synthetic_bird
"""

from collections.abc import Sequence

from data.definitions import CATEGORIES
from utils import cli


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    parser = cli.Parser(prog="python -m data.synthetic", description=__doc__)
    parser.add_argument("--dataset", type=cli.run_name, default=None, metavar="NAME", help="name of the folder in datasets/ (default: synthetic_<category>)")
    parser.add_argument("--category", choices=CATEGORIES, required=True, metavar="CATEGORY", help=f"what to show: {', '.join(CATEGORIES)}")
    parser.add_argument("--num_images", type=cli.positive_int, default=300, metavar="N", help="number of photographs (default: %(default)s)")
    parser.add_argument("--image_size", type=cli.pixels, default=256, metavar="PIXELS", help="longest side of a photograph (default: %(default)s)")
    parser.add_argument("--seed", type=cli.non_negative_int, default=1, metavar="N", help="seed of all random numbers (default: %(default)s)")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the collection that the command line describes."""
    options = vars(build_parser().parse_args(argv))
    options["dataset"] = options["dataset"] or f"synthetic_{options['category']}"
    # Only now: PyTorch takes a second to load, --help and mistakes need not wait for it
    from data.synthetic.collection import SyntheticConfig, make_collection
    from utils.run_directory import configure_logging

    configure_logging(None)
    make_collection(SyntheticConfig(**options))


if __name__ == "__main__":
    cli.run(main)
