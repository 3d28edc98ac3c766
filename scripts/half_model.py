"""Stores the weights of a model file in half precision, which halves it: `python -m scripts.half_model FILE`.

Loading converts them back; they keep three decimal digits, and results change in the third as well.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils import checkpoint, cli, model_file
from utils.run_directory import configure_logging

logger = logging.getLogger(__name__)

_LARGE = 256  # numbers; smaller tensors, such as running statistics, stay as they are


def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    parser = cli.Parser(prog="python -m scripts.half_model", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="model file of a run, changed")
    return parser


def halved(value: Any) -> Any:
    """Returns nested values with the large single-precision tensors in half precision."""
    if isinstance(value, Mapping):
        return {key: halved(member) for key, member in value.items()}
    large = isinstance(value, Tensor) and value.numel() >= _LARGE
    return value.half() if large and value.dtype == torch.float32 else value


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrites the model file."""
    args = build_parser().parse_args(argv)
    configure_logging()
    before = args.file.stat().st_size if args.file.exists() else 0
    checkpoint.save(args.file, halved(model_file.load(args.file)))
    logger.info("%s: %.1f MB, before %.1f", args.file, args.file.stat().st_size / 1e6, before / 1e6)


if __name__ == "__main__":
    cli.run(main)
