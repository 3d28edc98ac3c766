"""Stage 1: estimates pose hypotheses of every image from its silhouette.

Reads cache/DATASET/detections.json and cache/remeshed_templates/MODE/, writes
cache/DATASET/camera_hypotheses_silhouette_MODE.bin. Running the same command again continues an
interrupted run.

Examples:
  python pose_optimization_step1.py --dataset photobirds --mode singletpl
  python pose_optimization_step1.py --dataset p3d_car --mode multitpl --gpu_ids 0,1,2,3
  # As in the paper: 40 views, each optimized by rendering
  python pose_optimization_step1.py --dataset photobirds --mode singletpl --search reference
"""

import argparse
from collections.abc import Sequence

from data.definitions import MODES
from pipeline.all_stages.presets import add_preset_option
from pipeline.poses.options import Step1Options, check_sphere
from utils import cli
from utils.options import build


# fmt: off
def build_parser() -> argparse.ArgumentParser:
    """Returns the parser; its defaults are the only ones."""
    parser = cli.Parser(description=__doc__)
    group = parser.add_argument_group("required")
    group.add_argument("--dataset", type=cli.dataset_name, required=True, metavar="DATASET", help="prepared dataset, a folder under cache/")
    group.add_argument("--mode", choices=MODES, required=True, help="one template or all templates of the category")

    group = parser.add_argument_group("search")
    group.add_argument("--search", choices=("contour", "reference"), default="contour", help="contour: outlines are matched, the best modes refined; reference: 40 views as in the paper (default: %(default)s)")
    group.add_argument("--image_resolution", type=cli.pixels, default=256, metavar="SIZE", help="final size of the silhouettes in pixels (default: %(default)s)")
    group.add_argument("--symmetric", action=argparse.BooleanOptionalAction, default=True, help="accepted in all stages; templates are symmetric as they are (default: %(default)s)")
    group.add_argument("--mesh_path", default="autodetect", metavar="SPHERE", help="topology of the templates: autodetect or uvsphere_31rings.obj (default: %(default)s)")
    group.add_argument("--v_agr_threshold", type=cli.positive_float, default=0.3, metavar="SCORE", help="agreement score below which a pose counts as confident in the report (default: %(default)s)")
    cli.add_silhouette_options(group)

    group = parser.add_argument_group("contour search")
    group.add_argument("--refine_steps", type=cli.non_negative_int, default=30, metavar="N", help="steps that refine the modes of an image (default: %(default)s)")
    group.add_argument("--adapt_shape", type=cli.spread, default=0.0, metavar="SPREAD", help="also fit the shape: usual size of stretches, tapers and bends of the template, for example 0.1 (default: the template as it is)")

    group = parser.add_argument_group("reference search")
    group.add_argument("--camera_optim_steps", type=cli.positive_int, default=100, metavar="N", help="steps per image (default: %(default)s)")
    group.add_argument("--camera_lr_decay_after", type=cli.non_negative_int, default=80, metavar="STEP", help="step after which the learning rate falls to a tenth (default: %(default)s)")
    group.add_argument("--prune", action=argparse.BooleanOptionalAction, default=None, help="keep the better half of the hypotheses twice (default: only with --mode multitpl)")

    group = parser.add_argument_group("speed; the results do not depend on it")
    group.add_argument("--batch_size", type=cli.automatic_int, default=-1, metavar="N", help="images at a time over all devices; -1 chooses (default: %(default)s)")
    group.add_argument("--num_workers", type=cli.non_negative_int, default=4, metavar="N", help="processes that load images (default: %(default)s)")
    group.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="continue an interrupted run of the same command (default: %(default)s)")
    cli.add_common_options(parser)
    add_preset_option(parser, "pose_optimization_step1")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and estimates the hypotheses."""
    parser = build_parser()
    args = parser.parse_args(argv)
    # The reference search optimizes poses by rendering, and leaves the template as it is
    if args.adapt_shape and args.search == "reference":
        parser.error("--adapt_shape needs --search contour")
    cli.check_silhouette_options(parser, args)
    # Only now: PyTorch takes seconds to load, --help and mistakes need not wait for it
    from pipeline.poses import step1
    from utils import distributed

    check_sphere(args.mesh_path)
    devices = distributed.resolve_devices(args.gpu_ids)
    distributed.launch(step1.estimate_hypotheses, devices, build(Step1Options, vars(args)))


if __name__ == "__main__":
    cli.run(main)
