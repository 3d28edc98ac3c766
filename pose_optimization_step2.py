"""Stage 2: chooses the pose of every image by comparing parts, and drops doubtful images.

Reads cache/DATASET/detections.json and camera_hypotheses_silhouette_MODE.bin, writes
cache/DATASET/poses_estimated_MODE.bin and semantic_template_MODE.bin.

Examples:
  python pose_optimization_step2.py --dataset photobirds --mode singletpl
  # One pass, as in the paper: the semantic template is made once, poses are chosen but not moved
  python pose_optimization_step2.py --dataset photobirds --mode singletpl --semantic_rounds 1 --refine_steps 0
"""

import argparse
from collections.abc import Sequence

from data.definitions import MODES
from utils import cli


# fmt: off
def build_parser() -> argparse.ArgumentParser:
    """Returns the parser; its defaults are the only ones."""
    parser = cli.Parser(description=__doc__)
    group = parser.add_argument_group("required")
    group.add_argument("--dataset", type=cli.run_name, required=True, metavar="DATASET", help="prepared dataset, a folder under cache/")
    group.add_argument("--mode", choices=MODES, required=True, help="one template or all templates of the category")

    group = parser.add_argument_group("choice of poses")
    group.add_argument("--semantic_rounds", type=cli.positive_int, default=3, metavar="N", help="times that the semantic template is made and poses are chosen (default: %(default)s)")
    group.add_argument("--refine_steps", type=cli.non_negative_int, default=30, metavar="N", help="steps that move the best hypotheses in each round (default: %(default)s)")
    group.add_argument("--v_agr_threshold", type=cli.positive_float, default=0.3, metavar="SCORE", help="agreement score from which on an image is dropped (default: %(default)s)")
    group.add_argument("--image_resolution", type=cli.positive_int, default=256, metavar="SIZE", help="size of masks and part maps in pixels; compared at half of it (default: %(default)s)")
    group.add_argument("--symmetric", action=argparse.BooleanOptionalAction, default=True, help="give mirrored vertices the same parts (default: %(default)s)")
    group.add_argument("--mesh_path", default="autodetect", metavar="SPHERE", help="topology of the templates: autodetect or uvsphere_31rings.obj (default: %(default)s)")

    group = parser.add_argument_group("speed; the results do not depend on it")
    group.add_argument("--batch_size", type=cli.automatic_int, default=-1, metavar="N", help="images at a time over all devices; -1 chooses (default: %(default)s)")
    group.add_argument("--num_workers", type=cli.non_negative_int, default=8, metavar="N", help="processes that load images (default: %(default)s)")
    cli.add_common_options(parser)
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and chooses the poses."""
    args = build_parser().parse_args(argv)
    # Only now: PyTorch takes seconds to load, --help and mistakes need not wait for it
    from pipeline import semantics
    from utils import distributed

    devices = distributed.resolve_devices(args.gpu_ids)
    distributed.launch(semantics.estimate_poses, devices, semantics.SemanticsConfig(**vars(args)))


if __name__ == "__main__":
    cli.run(main)
