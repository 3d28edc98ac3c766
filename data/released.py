"""Checks a folder of published files (checkpoints, caches) and turns pickled ones into plain ones.

Nothing in the files is executed, and links are not followed. All stages read the published files as they
are; plain ones are read faster, and by every program. Converted files take the place of the pickled
ones, except detections.npy, beside which detections.json is put.

Examples:
  # What was downloaded into cache/, checked and converted
  python -m data.released cache

  # Only a list
  python -m data.released checkpoints_gan --check
"""

from collections.abc import Sequence
from pathlib import Path

from utils import cli


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    parser = cli.Parser(prog="python -m data.released", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the archives were unpacked: cache, checkpoints_gan, checkpoints_recon, or a folder that has them")
    parser.add_argument("--check", action="store_true", help="list and check only, convert nothing")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and goes through the folder."""
    args = build_parser().parse_args(argv)
    # Only now: PyTorch takes a second to load, --help and mistakes need not wait for it
    from data.published.convert import inspect
    from utils.run_directory import configure_logging

    configure_logging()
    inspect(args.folder, convert=not args.check)


if __name__ == "__main__":
    cli.run(main)
