"""Stage 2: chooses the pose of every image by its parts, colors and features, and drops doubtful images.

Reads cache/DATASET/detections.json and camera_hypotheses_silhouette_MODE.bin, writes
cache/DATASET/poses_estimated_MODE.bin and semantic_template_MODE.bin.

Examples:
  python pose_optimization_step2.py --dataset photobirds --mode singletpl
  # Without part maps, and pictures of the result
  python pose_optimization_step2.py --dataset photobirds --mode singletpl --parts_source appearance --visualize
  # Parts that are found without labels
  python pose_optimization_step2.py --dataset photobirds --mode singletpl --parts_source learned --num_parts 4
  # Poses alone: every object has the shape of its template
  python pose_optimization_step2.py --dataset photobirds --mode singletpl --shape_modes 0
  # How well the chosen poses carry annotated keypoints from one photograph to another
  python pose_optimization_step2.py --dataset photobirds --mode singletpl --evaluate_keypoints
  # One pass, as in the paper: the semantic template is made once, poses are chosen but not moved
  python pose_optimization_step2.py --dataset photobirds --mode singletpl --semantic_rounds 1 --refine_steps 0
"""

import argparse
from collections.abc import Sequence

from data.definitions import MODES
from pipeline.all_stages.presets import add_preset_option
from pipeline.poses.options import Step2Options, check_sphere
from utils import cli
from utils.options import build


# fmt: off
def build_parser() -> argparse.ArgumentParser:
    """Returns the parser; its defaults are the only ones."""
    parser = cli.Parser(description=__doc__)
    group = parser.add_argument_group("required")
    group.add_argument("--dataset", type=cli.dataset_name, required=True, metavar="DATASET", help="prepared dataset, a folder under cache/")
    group.add_argument("--mode", choices=MODES, required=True, help="one template or all templates of the category")

    group = parser.add_argument_group("choice of poses")
    group.add_argument("--semantic_rounds", type=cli.positive_int, default=2, metavar="N", help="times that the semantic template is made and poses are chosen (default: %(default)s)")
    group.add_argument("--refine_steps", type=cli.non_negative_int, default=30, metavar="N", help="steps that move the best hypotheses in each round (default: %(default)s)")
    group.add_argument("--parts_source", choices=("maps", "appearance", "learned"), default="maps", help="maps: part maps, where there are any, and colors; appearance: colors only; learned: parts found in the collection, and colors (default: %(default)s)")
    group.add_argument("--clips", action="store_true", help="photographs named <clip>_<number> are frames of clips, in which objects hardly turn from one to the next")
    group.add_argument("--shape_modes", type=cli.non_negative_int, default=6, metavar="N", help="modes of shape, such as a neck that is lowered, that are learned from the masks and fitted to every object; 0: objects have the shape of the template (default: %(default)s)")
    group.add_argument("--features", default="auto", metavar="NAME[:FILE]", help="network of timm whose features of the photographs are compared beside the colors, and a file of its weights; none: only colors; auto: those of tf_efficientnet_lite0, where timm and its weights are installed (default: %(default)s)")
    group.add_argument("--keep_share", type=cli.fraction, default=0.9, metavar="SHARE", help="share of the images that is kept, the most confident ones (default: %(default)s)")
    group.add_argument("--v_agr_threshold", type=cli.positive_float, default=None, metavar="SCORE", help="keep images by the published rule instead: agreement score below this, overlap above the worst tenth's (published: 0.3)")
    group.add_argument("--image_resolution", type=cli.pixels, default=256, metavar="SIZE", help="size of masks and part maps in pixels; compared at half of it (default: %(default)s)")
    group.add_argument("--symmetric", action=argparse.BooleanOptionalAction, default=True, help="give mirrored vertices the same parts (default: %(default)s)")
    group.add_argument("--mesh_path", default="autodetect", metavar="SPHERE", help="topology of the templates: autodetect or uvsphere_31rings.obj (default: %(default)s)")

    group = parser.add_argument_group("learned parts")
    group.add_argument("--num_parts", type=cli.part_count, default=4, metavar="K", help="number of parts (default: %(default)s)")
    group.add_argument("--parts_iters", type=cli.positive_int, default=500, metavar="N", help="training steps (default: %(default)s)")
    group.add_argument("--parts_features", default=None, metavar="FILE", help="weights of a ResNet or VGG of torchvision, or a network as for --features, whose features the parts should share (default: none; the parts are places on the template)")

    group = parser.add_argument_group("results beside the poses")
    group.add_argument("--export_semantic_template", action="store_true", help="write output/DATASET_semantic_template_MODE.npz: templates and the parts of their vertices")
    group.add_argument("--visualize", action="store_true", help="write output/DATASET_poses_MODE.png, images from worst to best, and output/DATASET_poses_MODE_views.png")

    group = parser.add_argument_group("evaluation of poses that have been chosen")
    group.add_argument("--evaluate_keypoints", action="store_true", help="measure how well the chosen poses and their templates carry annotated keypoints from one photograph to another, instead of choosing poses")
    group.add_argument("--number_pairs", type=cli.positive_int, default=10000, metavar="N", help="pairs of photographs (default: %(default)s)")
    group.add_argument("--pck_alpha", type=cli.fractions, default=(0.1, 0.15), metavar="LIST", help="tolerances, relative to the larger side of the object's box (default: 0.1,0.15)")

    group = parser.add_argument_group("speed; the results do not depend on it")
    group.add_argument("--batch_size", type=cli.automatic_int, default=-1, metavar="N", help="images at a time over all devices; -1 chooses (default: %(default)s)")
    group.add_argument("--num_workers", type=cli.non_negative_int, default=8, metavar="N", help="processes that load images (default: %(default)s)")
    cli.add_common_options(parser)
    add_preset_option(parser, "pose_optimization_step2")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and chooses the poses."""
    parser = build_parser()
    args = parser.parse_args(argv)
    # The features are what the part network is trained to agree with
    if args.parts_features and args.parts_source != "learned":
        parser.error("--parts_features needs --parts_source learned")
    # Only now: PyTorch takes seconds to load, --help and mistakes need not wait for it
    from pipeline.poses import report, step2
    from rendering.keypoint_transfer import TransferOptions
    from utils import distributed

    check_sphere(args.mesh_path)
    if args.evaluate_keypoints:
        transfer = build(TransferOptions, vars(args) | {"kp_mode": "cam"})
        report.evaluate_keypoints(args.dataset, args.mode, transfer)
        return
    devices = distributed.resolve_devices(args.gpu_ids)
    distributed.launch(step2.estimate_poses, devices, build(Step2Options, vars(args)))


if __name__ == "__main__":
    cli.run(main)
