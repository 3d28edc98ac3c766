"""Runs the programs of an installed package: `textured-mesh-gan run_generation --name ...`.

Every `python PROGRAM.py` and `python -m PROGRAM` of the guides is `textured-mesh-gan PROGRAM` there.
"""

import importlib
import sys
from collections.abc import Sequence

from utils import cli

PROGRAMS = (
    *("data.synthetic", "data.prepare", "data.released"),
    *("remesh", "pose_optimization_step1", "pose_optimization_step2"),
    *("run_reconstruction", "run_generation", "run_all"),
)
# In the repository the programs are at the top; installed, they are in this package
_PARENT = cli.__name__.rpartition("utils.")[0]


def build_parser() -> cli.Parser:
    """Returns the parser of the first word; the program parses the others."""
    lines = "\n".join(f"  {name}" for name in PROGRAMS)
    parser = cli.Parser(
        prog="textured-mesh-gan",
        description="Learns to generate textured 3D meshes from a folder of photographs.",
        epilog=f"programs, in the order of the pipeline:\n{lines}\n\ntextured-mesh-gan PROGRAM --help lists the options of one.",
    )
    parser.add_argument("program", metavar="PROGRAM", choices=PROGRAMS, help="what to run")
    return parser


def run_program(argv: Sequence[str]) -> None:
    """Runs the program that the first word names with the other words."""
    name = build_parser().parse_args(argv[:1]).program
    module = importlib.import_module(_PARENT + name)
    if hasattr(module, "__path__"):  # a package, which runs by its module of this name
        module = importlib.import_module(f"{module.__name__}.__main__")
    module.main(argv[1:])


def main() -> None:
    """The command `textured-mesh-gan`."""
    # Usage and errors of a program begin with the words that were typed
    sys.argv[0] = " ".join(["textured-mesh-gan", *sys.argv[1:2]])
    cli.run(lambda: run_program(sys.argv[1:]))


if __name__ == "__main__":
    main()
