"""Prepares a collection: datasets/<name>/ -> cache/<name>/detections.json and collection.json.

Every photograph holds one object, which its mask outlines. Photographs that cannot be used stop the
preparation, or are left out and listed with --skip_invalid. CUB, Pascal3D+ and ImageNet are arranged
as collections first, from their official archives or folders, and so are renderings in ShapeNet's layout.

Examples:
  # Photographs of birds in datasets/photobirds/images/, masks in datasets/photobirds/masks/
  python -m data.prepare --dataset photobirds --category bird

  # Of any category: from where photographs show it, and which template is near enough to begin with
  python -m data.prepare --dataset dogs --category dog --views standing --template_of horse

  # What is wrong with them: a list, and cache/photobirds/check.png
  python -m data.prepare --dataset photobirds --category bird --check

  # Masks from annotations that call birds "object", or by a saliency network
  python -m data.prepare --dataset photobirds --category bird --annotations instances.json --annotation_category object
  python -m data.prepare --dataset photobirds --category bird --mask_model isnet-general-use.onnx --skip_invalid

  # Official data sets; masks of ImageNet by Mask R-CNN or by another tool
  python -m data.prepare --dataset cub --source downloads/CUB_200_2011.tgz downloads/cmr/cub
  python -m data.prepare --dataset imagenet_zebra --source downloads/imagenet --mask_rcnn maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth --skip_invalid
  python -m data.prepare --dataset all --source downloads/imagenet --annotations instances.json --skip_invalid

  # Several views of each object: <class>/<model>/render_*.png with transparency, <class>.train and <class>.valid
  python -m data.prepare --dataset chairs --source downloads/renderings --category chair
"""

from collections.abc import Sequence
from pathlib import Path

from data.definitions import CATEGORIES, VIEWS
from data.mask_styles import CHOICES
from data.preparation.options import MIN_AREA, MIN_AREA_MADE, MIN_SCORE, PrepareConfig
from utils import cli


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    parser = cli.Parser(prog="python -m data.prepare", description=__doc__)
    parser.add_argument("--dataset", type=cli.dataset_name, required=True, metavar="NAME", help="name of the folder in datasets/, or all for the 13 default ones")
    parser.add_argument("--source", type=Path, nargs="+", default=(), metavar="PATH", help="folders and archives (.tar, .tgz, .zip) of cub, p3d_* and imagenet_*, and of the annotations of CMR; or a folder with renderings in ShapeNet's layout (default: datasets/<name>/ and datasets/<cub, p3d or imagenet>/)")
    parser.add_argument("--category", default=None, metavar="CATEGORY", help=f"what the photographs show, if the collection does not say it; any word, known: {', '.join(CATEGORIES)}")
    parser.add_argument("--views", nargs="+", metavar="X", help=f"from where they show it: {', '.join(VIEWS)}, or five numbers in degrees: elevation, its spread, spread of roll, pitch, its spread (default: as usual for the category, standing for those unknown)")
    parser.add_argument("--template_of", metavar="CATEGORY", help="borrow the templates of another category")
    parser.add_argument("--check", action="store_true", help="only report what is wrong with each photograph, and draw a contact sheet")
    parser.add_argument("--skip_invalid", action="store_true", help="leave unusable images out and list them, instead of stopping")
    parser.add_argument("--min_area", type=cli.positive_int, default=None, metavar="N", help=f"smallest usable mask in pixels (default: {MIN_AREA}; {MIN_AREA_MADE} for masks that the options below make)")
    parser.add_argument("--masks", choices=CHOICES, default="auto", help="how files in masks/ mean the object: bright or dark, opaque (alpha), any label but the background (default: what most of them look like, which is said)")
    group = parser.add_argument_group("masks for photographs without")
    group.add_argument("--annotations", type=Path, metavar="PATH", help="file or folder of annotations by any tool: COCO, labelme, YOLO segmentation, SAM, lists of results")
    group.add_argument("--annotation_category", metavar="NAME", help="what the annotations, or the classes of Mask R-CNN, call the objects (default: the category)")
    group.add_argument("--mask_rcnn", type=Path, metavar="FILE", help="weights of torchvision's Mask R-CNN (maskrcnn_resnet50_fpn)")
    group.add_argument("--mask_model", type=Path, metavar="FILE", help="saliency network in ONNX, such as IS-Net, BiRefNet, U2-Net; needs requirements-masks.txt")
    group.add_argument("--mask_size", type=cli.positive_int, metavar="N", help="side of its input in pixels, where the file does not fix it")
    group.add_argument("--mask_mean", type=cli.non_negative_float, nargs=3, metavar="X", help="mean of red, green and blue in [0, 1] that it subtracts (default: what the file says, else as ImageNet or IS-Net)")
    group.add_argument("--mask_std", type=cli.positive_float, nargs=3, metavar="X", help="deviation that it divides by, likewise")
    group.add_argument("--min_score", type=cli.fraction, default=MIN_SCORE, metavar="X", help="least confidence of detected objects (default: %(default)s)")
    group.add_argument("--replace_masks", action="store_true", help="make masks anew for which there is an object, those of other programs too")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and prepares the collection."""
    config = PrepareConfig(**vars(build_parser().parse_args(argv)))
    # Only now: PyTorch takes a second to load, --help and mistakes need not wait for it
    from data.preparation.preparation import prepare_each
    from utils.run_directory import configure_logging

    configure_logging()
    prepare_each(config)


if __name__ == "__main__":
    cli.run(main)
