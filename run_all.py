"""Runs all stages on a folder of photographs: preparation, poses, meshes, GAN, exported meshes.

Every command is printed before it runs. The same command again continues where it was interrupted,
and runs only stages whose command or inputs have changed.

Examples:
  # At most half an hour on two cores, with some hundred photographs and masks in datasets/my_birds/
  python run_all.py --dataset my_birds --category bird --preset cpu-30min

  # A night, for finer textures
  python run_all.py --dataset my_birds --category bird --preset cpu-overnight

  # As published, on GPUs
  python run_all.py --dataset cub --category bird --preset paper --gpu_ids 0,1,2,3
"""

from collections.abc import Sequence

from pipeline.all_stages.presets import PRESETS
from utils import cli


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser; its defaults are the only ones."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--dataset", type=cli.dataset_name, required=True, metavar="NAME", help="folder in datasets/ with photographs and masks")
    parser.add_argument("--category", metavar="CATEGORY", help="what they show, if the collection does not say it")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu-30min", help="options of all stages for a budget of time (default: %(default)s)")
    parser.add_argument("--name", type=cli.run_name, metavar="RUN", help="name of the runs (default: DATASET_PRESET_MODE)")
    parser.add_argument("--mode", choices=cli.MODES, default="singletpl", help="one template or all templates of the category (default: %(default)s)")
    parser.add_argument("--how_many", type=cli.positive_int, default=16, metavar="N", help="generated meshes to export (default: %(default)s)")
    cli.add_common_options(parser)
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and runs the stages."""
    parser = build_parser()
    args = parser.parse_args(argv)
    # Only now: PyTorch takes seconds to load, --help and mistakes need not wait for it
    from pipeline.all_stages.running import run_all
    from pipeline.all_stages.stages import Config

    name = args.name or f"{args.dataset}_{args.preset}_{args.mode}"
    devices = args.gpu_ids and ",".join(map(str, args.gpu_ids))
    # Commands are easier to read without what they do anyway
    given = {"gpu_ids": devices, "seed": args.seed, "rasterizer": args.rasterizer}
    machine = [(f"--{key}", str(x)) for key, x in given.items() if x != parser.get_default(key)]
    words = tuple(word for pair in machine for word in pair)
    run_all(Config(args.dataset, args.category, name, args.mode, args.preset, args.how_many, words))


if __name__ == "__main__":
    cli.run(main)
