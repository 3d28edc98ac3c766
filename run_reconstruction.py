"""Stage 3: trains the network that estimates a textured mesh from an image, and applies it.

Examples:
  # Train; the same command resumes an interrupted run
  python run_reconstruction.py --name new_p3d_car_singletpl --dataset p3d_car --iters 130000 --tensorboard

  # Train a narrow network on a laptop
  python run_reconstruction.py --name birds_singletpl --dataset photobirds --width 0.25 --batch_size 10 --iters 5000

  # Overlap of the silhouettes, color error, and distance to the true shapes where they are known
  python run_reconstruction.py --name birds_singletpl --dataset photobirds --evaluate

  # Train on a part of the individuals, and measure the others: shapes, keypoints, unseen views
  python run_reconstruction.py --name seen_singletpl --dataset photobirds --iters 5000 --split train --instances
  python run_reconstruction.py --name seen_singletpl --dataset photobirds --evaluate --split test --instances --visualize

  # Textures, meshes and poses that the GAN learns from
  python run_reconstruction.py --name birds_singletpl --dataset photobirds --batch_size 10 --generate_pseudogt

  # Every photograph as a textured mesh, with a page of them all
  python run_reconstruction.py --name birds_singletpl --dataset photobirds --export_meshes --how_many 40

  # A photograph of your own, with the model file alone
  python run_reconstruction.py --name birds_singletpl --photo my_bird.jpg --mask my_bird_mask.png

  # Point clouds from several views of each object, without poses and templates
  python run_reconstruction.py --name chairs_points --dataset chairs --shape_model points --image_resolution 128 --batch_size 24 --iters 130000
"""

import argparse
from collections.abc import Sequence

from pipeline.all_stages.presets import add_preset_option
from utils import cli

TASKS = ("evaluate", "generate_pseudogt", "export_meshes", "photo")
TASK_OF = {  # options that only some tasks read
    **dict.fromkeys(("metrics", "visualize"), ("evaluate",)),
    "how_many": ("export_meshes",),
    **dict.fromkeys(("out_path", "overwrite"), ("export_meshes", "photo")),
    **dict.fromkeys(("mask", "mask_model", "mask_rcnn", "category"), ("photo",)),
    "refine_steps": ("evaluate", "photo"),
}


# fmt: off
def build_parser() -> argparse.ArgumentParser:
    """Returns the parser; its defaults are the only ones."""
    parser = cli.Parser(description=__doc__)
    group = parser.add_argument_group("required")
    group.add_argument("--name", type=cli.run_name, required=True, metavar="RUN", help="name of the run, a folder under checkpoints_recon/")
    group.add_argument("--dataset", type=cli.dataset_names, metavar="DATASET", help="prepared dataset with estimated poses, several as in dogs,cats, or `all` for the 13 default ones; not needed with --photo")
    _add_tasks(parser)
    _add_model(parser)
    _add_training(parser)
    cli.add_common_options(parser)
    add_preset_option(parser, "run_reconstruction")
    return parser


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    """Adds what is done beside training, with the options of each task."""
    group = parser.add_argument_group("what to do (default: train)")
    group.add_argument("--evaluate", action="store_true", help="measure a checkpoint on all images with a pose")
    group.add_argument("--generate_pseudogt", action="store_true", help="write the pseudo-ground-truth for the GAN to cache/DATASET/")
    group.add_argument("--export_meshes", action="store_true", help="write the textured mesh of every photograph, its camera, and a page of them all")
    group.add_argument("--how_many", type=cli.positive_int, metavar="N", help="photographs to export, drawn by --seed (default: all)")
    group.add_argument("--out_path", metavar="FOLDER", help="where the meshes go (default: output/RUN_meshes; with --photo, output/RUN_photographs)")
    group.add_argument("--overwrite", action="store_true", help="replace exported meshes of another model, other poses or another resolution")
    group.add_argument("--pseudogt_resolution", type=cli.positive_int, default=512, metavar="R", help="size of the textures of pseudo-ground-truth and exported meshes (default: %(default)s)")
    group.add_argument("--pseudogt_path", help=argparse.SUPPRESS)
    group.add_argument("--which_epoch", type=cli.checkpoint_choice, default="latest", metavar="N|latest", help="checkpoint to apply (default: %(default)s)")
    group.add_argument("--inception_weights", metavar="FILE", help="ImageNet weights of torchvision's Inception v3, for the image statistics (default: torch's cache, else a download)")
    group.add_argument("--standard_fid", metavar="FILE", help="weights ported from TensorFlow's Inception of 2015: statistics for run_generation.py --standard_fid too")

    group = parser.add_argument_group("photographs that are trained on or measured")
    group.add_argument("--split", choices=["all", "train", "val", "test"], default="all", help="test: every fifth photograph; val: every tenth of the others; train: the rest (default: %(default)s)")
    group.add_argument("--instances", action="store_true", help="test: all photographs of the last fifth of the individuals, by instances.json of the collection or its true shapes")

    group = parser.add_argument_group("evaluation")
    group.add_argument("--metrics", type=cli.several("iou", "color", "shape", "keypoints", "novel_view", "pose", "camera"), metavar="LIST", help="some of iou,color,shape,keypoints,novel_view,pose,camera (default: all but camera that model and dataset allow)")
    group.add_argument("--kp_mode", choices=["flow", "cam", "uv"], default="cam", help="keypoints go to the same point of the target's mesh (cam), the visible pixel of the same texel (uv), or where the texture flow finds the texel (flow) (default: %(default)s)")
    group.add_argument("--number_pairs", type=cli.positive_int, default=10000, metavar="N", help="pairs of photographs for keypoints (default: %(default)s)")
    group.add_argument("--pck_alpha", type=cli.fractions, default=(0.1, 0.15), metavar="LIST", help="tolerances for keypoints, relative to the larger side of the object's box (default: 0.1,0.15)")
    group.add_argument("--visualize", action="store_true", help="write pictures of transferred keypoints and novel views to output/")

    group = parser.add_argument_group("photographs of your own")
    group.add_argument("--photo", metavar="PATH", help="write the textured mesh of a photograph, or of all in a folder, with the model file alone")
    group.add_argument("--mask", metavar="PATH", help="mask of the photograph, or a folder with masks of the same names (default: its transparency)")
    group.add_argument("--mask_model", metavar="FILE", help="saliency network in ONNX that finds the object; needs requirements-masks.txt")
    group.add_argument("--mask_rcnn", metavar="FILE", help="weights of torchvision's Mask R-CNN, which finds the object")
    group.add_argument("--category", type=str.lower, metavar="CATEGORY", help="what the photographs show, if the model knows several categories")
    group.add_argument("--camera", choices=["student", "search", "both"], default="both", help="where the camera comes from: the student of the model, a search by the outline, or the search with the student's proposals, if the model has one (default: %(default)s)")
    group.add_argument("--refine_steps", type=cli.non_negative_int, default=0, metavar="N", help="steps that improve shape, texture and camera for each photograph, also of those that are evaluated (default: %(default)s)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the architecture."""
    group = parser.add_argument_group("model (a checkpoint that is applied brings its own)")
    group.add_argument("--mode", choices=["autodetect", "singletpl", "multitpl"], default="autodetect", help="templates behind the poses (default: read off the name)")
    group.add_argument("--mesh_path", default="autodetect", metavar="SPHERE", help="topology: autodetect or uvsphere_31rings.obj")
    group.add_argument("--image_resolution", type=cli.pixels, default=256, metavar="H", help="size of the crops, a multiple of 32 (default: %(default)s)")
    group.add_argument("--texture_resolution", type=int, choices=[64, 128, 256], default=128, help="size of the predicted texture (default: %(default)s)")
    group.add_argument("--mesh_resolution", type=int, choices=[32, 64], default=32, help="size of displacement maps: 64 are finer shapes, on a sphere of 63 rings (default: %(default)s)")
    group.add_argument("--prediction_type", choices=["none", "texture", "semantics", "both"], default="both", help="what is predicted besides the mesh (default: %(default)s)")
    group.add_argument("--texture_model", choices=["rgb", "flow"], default="rgb", help="textures as colors, or as the places where the photograph shows them (default: %(default)s)")
    group.add_argument("--shape_head", choices=["convolution", "linear", "both"], default="linear", help="shapes by convolutions from a sphere, as published, as a linear function of the code from the mean of the templates, which takes far fewer steps, or as their sum (default: %(default)s)")
    group.add_argument("--pose_source", choices=["estimated", "sfm"], default="estimated", help="poses of step 2, or the annotated cameras that cub and p3d_* come with (default: %(default)s)")
    group.add_argument("--camera_source", choices=["estimated", "predicted"], default="estimated", help="predicted: a network proposes the poses and learns them with the meshes, from masks, colors and the template, without steps 1 and 2 (default: %(default)s)")
    group.add_argument("--num_hypotheses", type=cli.positive_int, default=8, metavar="N", help="with --camera_source predicted, cameras that it proposes, one for each of N sectors of the azimuth (default: %(default)s)")
    group.add_argument("--width", type=cli.positive_float, default=1.0, metavar="FACTOR", help="factor on all channel counts, 1 = the paper's (default: %(default)s)")
    group.add_argument("--norm_g", choices=["syncbatch", "batch", "instance", "none"], default="syncbatch", help="normalization (default: %(default)s)")
    group.add_argument("--symmetric", action=argparse.BooleanOptionalAction, default=True, help="predict half of each map and mirror it (the only mode)")

    group = parser.add_argument_group("points (--shape_model points)")
    group.add_argument("--shape_model", choices=["mesh", "points"], default="mesh", help="textured meshes from photographs with poses, or point clouds from several views of each object without (default: %(default)s)")
    group.add_argument("--num_points", type=cli.positive_int, default=8000, metavar="N", help="points of a cloud (default: %(default)s)")
    group.add_argument("--camera_prior", choices=["free", "upright"], default="free", help="free: views from any direction, as published; upright: from elevations between -20 and 40 degrees, of objects that are their own mirror images (default: %(default)s)")
    group.add_argument("--num_candidates", type=cli.positive_int, default=4, metavar="K", help="poses that are proposed for each view, of which the best one counts (default: %(default)s)")
    group.add_argument("--point_grid", type=cli.pixels, default=cli.POINT_GRID, metavar="G", help="cells along each edge of the grid that points fill, and pixels of their silhouettes; also with --silhouette volume (default: %(default)s)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Adds losses, rates and length of the training, and what it writes."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=cli.positive_int, metavar="N", help="passes over the data (default: 1000)")
    group.add_argument("--iters", type=cli.positive_int, metavar="N", help="steps, instead of --epochs")
    group.add_argument("--batch_size", type=cli.positive_int, default=32, metavar="N", help="images per step over all devices (default: %(default)s)")
    group.add_argument("--loss", choices=["mse", "l1"], default="mse", help="for colors, parts and silhouettes (default: %(default)s)")
    group.add_argument("--mesh_regularization", type=cli.non_negative_float, default=0.00005, metavar="WEIGHT", help="weight of the flatness loss (default: %(default)s)")
    group.add_argument("--final_sharpness", type=cli.positive_float, default=70000.0, metavar="S", help="sharpness of silhouettes per squared screen unit, to which it rises from 7000, so that meshes end at the outlines; 7000 stays soft, as published (default: %(default)s)")
    cli.add_silhouette_options(group, grid=False)
    group.add_argument("--semi_fraction", type=cli.fraction, default=0.1, metavar="SHARE", help="share of the images, by overlap, whose meshes are pinned to the template (default: %(default)s)")
    group.add_argument("--lr", type=cli.learning_rate, default=0.0001, metavar="RATE", help="learning rate (default: %(default)s)")
    group.add_argument("--pose_rate", type=cli.fraction, default=0.0, metavar="RATE", help="learn corrections of single poses with this rate, in radians, screen units and shares of the scale (default: %(default)s, none)")
    group.add_argument("--optimize_deltas", action="store_true", help="correct translations and scales alone, with --pose_rate or else 0.0001; photographs that were not trained on get the mean")
    group.add_argument("--optimize_z0", action="store_true", help="correct z0, which tells the strength of the perspective, likewise; annotated cameras begin at 1")
    group.add_argument("--lr_decay_every", type=cli.positive_int, metavar="N", help="epochs between halvings of the rates (default: 250; with --iters 4 in all)")
    group.add_argument("--update_template_every", type=cli.positive_int, metavar="N", help="epochs, with --iters steps, after which the mean displacement of the meshes is added to the templates that they are pinned to (default: never)")
    group.add_argument("--semantic_consistency", choices=["none", "prob", "vertex", "both"], default="none", help="compare the parts of the template with those of photographs: by renderings (prob), by distances (vertex), or both (default: %(default)s)")
    group.add_argument("--neighbor_weight", type=cli.non_negative_float, default=0.0, metavar="WEIGHT", help="weight of swaps: shapes and textures must also explain photographs of similar objects from other sides (default: %(default)s, none)")
    group.add_argument("--student_weight", type=cli.non_negative_float, default=20.0, metavar="WEIGHT", help="weight of rotations in the loss of the student, which learns to estimate poses of photographs; 0 trains none (default: %(default)s)")
    group.add_argument("--mask_weight", type=cli.non_negative_float, default=1.0, metavar="WEIGHT", help="weight of overlaps in the loss of the mask head, which learns to find objects in photographs; 0 trains none (default: %(default)s)")
    group.add_argument("--flow_dt_weight", type=cli.non_negative_float, default=1.0, metavar="WEIGHT", help="with --texture_model flow, weight of what keeps the places inside the mask (default: %(default)s)")
    group.add_argument("--flow_cycle_weight", type=cli.non_negative_float, default=10.0, metavar="WEIGHT", help="with --texture_model flow, weight of what moves them to where the mesh is seen (default: %(default)s)")
    group.add_argument("--perceptual_weight", type=cli.non_negative_float, default=0.0, metavar="WEIGHT", help="weight of the perceptual distance between renderings and photographs (default: %(default)s)")
    group.add_argument("--perceptual_features", default="auto", metavar="NAME[:FILE]", help="what that compares: the features of a network of timm, and a file of its weights; or gradients; auto: features of tf_efficientnet_lite0 where timm and its weights are installed, else gradients (default: %(default)s)")
    group.add_argument("--bfloat16", action="store_true", help="convolve in bfloat16: about twice as fast where the processor has units for it")
    group.add_argument("--continue_train", action="store_true", help="accepted for compatibility: the same command always resumes")
    group.add_argument("--no_prefetch", action="store_true", help="read the images at every use instead of keeping the crops in memory")
    group.add_argument("--cache_gb", type=cli.gigabytes, metavar="GB", help="memory for crops; what does not fit is read again as needed (default: a third of the free memory)")
    group.add_argument("--num_workers", type=cli.non_negative_int, default=8, metavar="N", help="processes that read images with --no_prefetch (default: %(default)s)")

    group = parser.add_argument_group("output; intervals are steps with --iters, else epochs")
    group.add_argument("--checkpoint_freq", type=cli.positive_int, metavar="N", help="between numbered checkpoints (default: 100 epochs; with --iters 30 in all)")
    group.add_argument("--save_freq", type=cli.positive_int, metavar="N", help="between saves of the latest state (default: 10 epochs)")
    group.add_argument("--keep_checkpoints", type=cli.positive_int, default=3, metavar="N", help="numbered checkpoints that stay: the newest, and the best one (default: %(default)s)")
    group.add_argument("--image_freq", type=cli.positive_int, metavar="N", help="between pictures (default: 50 epochs; with --iters 30 in all)")
    group.add_argument("--tensorboard", action="store_true", help="write curves and pictures to tensorboard_recon/")
# fmt: on


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses combinations that have no meaning."""
    if args.epochs and args.iters:
        parser.error("--epochs and --iters exclude each other")
    tasks = [name for name in TASKS if getattr(args, name)]
    if len(tasks) > 1:
        parser.error(f"--{tasks[0]} and --{tasks[1]} exclude each other")
    for name, readers in TASK_OF.items():
        if getattr(args, name) and not any(getattr(args, task) for task in readers):
            parser.error(f"--{name} needs --{' or --'.join(readers)}")
    if args.dataset is None and args.photo is None:
        parser.error("--dataset is required")
    if args.mask_model and args.mask_rcnn:
        parser.error("--mask_model and --mask_rcnn exclude each other")
    # Which photographs
    if args.generate_pseudogt and args.split != "all":
        parser.error("--split: the GAN learns from all photographs, so omit it")
    if args.instances and args.split == "all":
        parser.error("--instances needs --split train, val or test")
    # Accepted because published commands have them, but only these values are supported
    if not args.symmetric:
        parser.error("--no-symmetric: only mirror-symmetric meshes are supported")
    if args.mesh_path != "autodetect" and "31rings" not in args.mesh_path:
        parser.error(f"--mesh_path {args.mesh_path}: templates have the topology of 31 rings")
    if args.texture_model == "flow" and args.prediction_type in ("none", "semantics"):
        parser.error("--texture_model flow needs --prediction_type texture or both")
    if args.num_hypotheses % 2 or args.num_hypotheses > 64:
        number = args.num_hypotheses
        parser.error(
            f"--num_hypotheses {number}: must be even, as sectors mirror each other, and up to 64"
        )
    if args.camera_source == "predicted":
        for name in ("optimize_deltas", "optimize_z0", "pose_rate", "neighbor_weight"):
            if getattr(args, name):
                parser.error(f"--{name} needs --camera_source estimated")
        if args.pose_source == "sfm":
            parser.error("--pose_source sfm and --camera_source predicted exclude each other")
    if args.image_resolution % 32:
        parser.error(f"--image_resolution {args.image_resolution}: must be a multiple of 32")
    if args.pseudogt_path is not None:
        parser.error("--pseudogt_path: the pseudo-ground-truth is always written to cache/DATASET/")
    # Checkpoints are not evaluated during training, so that none is known as the best
    if args.which_epoch == "best":
        parser.error("--which_epoch best: expected a number or latest")


def check_points(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses options that have no meaning for points, and options of points for meshes."""
    if args.shape_model == "mesh":
        for name in ("num_points", "num_candidates", "camera_prior"):
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"--{name} needs --shape_model points")
        cli.check_silhouette_options(parser, args)
        return
    if args.silhouette != "raster":
        parser.error("--silhouette is for meshes, not for --shape_model points")
    for name in ("generate_pseudogt", "instances", "metrics", "visualize", "refine_steps"):
        if getattr(args, name):
            parser.error(f"--{name} is for meshes, not for --shape_model points")
    size = args.image_resolution
    if size & (size - 1):
        parser.error(f"--image_resolution {size}: points need a power of 2, such as 64 or 128")
    if args.camera_prior == "upright":
        if args.num_points % 2:
            parser.error(
                f"--num_points {args.num_points}: expected an even number of mirror images"
            )
        if args.num_candidates != parser.get_default("num_candidates"):
            parser.error("--num_candidates is for --camera_prior free")
    if args.split == "val":
        parser.error("--split val: expected train or test, which are the lists of the renderings")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and runs one of the tasks."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_options(parser, args)
    check_points(parser, args)
    if args.shape_model == "points":
        run_points(args)
        return
    # Only now: PyTorch takes seconds to load, --help and mistakes need not wait for it
    from pipeline.reconstruction import evaluation, pseudo_ground_truth, training
    from pipeline.reconstruction.config import make_config
    from pipeline.reconstruction.meshes import collection_meshes, own_photographs
    from utils import distributed

    devices = distributed.resolve_devices(args.gpu_ids)
    args.bfloat16 = distributed.use_bfloat16(args.bfloat16, devices)
    config = make_config(vars(args))
    if args.generate_pseudogt:
        task = pseudo_ground_truth.generate
    elif args.photo is not None:
        task = own_photographs.reconstruct
    elif args.export_meshes:
        task = collection_meshes.export_meshes
    elif args.evaluate:
        task = evaluation.evaluate
    else:
        task = training.train
    distributed.launch(task, devices, config)


def run_points(args: argparse.Namespace) -> None:
    """Runs one of the tasks with points instead of meshes."""
    from pipeline.reconstruction.points import evaluation, export, training
    from pipeline.reconstruction.points.config import make_config
    from utils import distributed

    devices = distributed.resolve_devices(args.gpu_ids)
    if args.evaluate:
        task = evaluation.evaluate
    elif args.photo is not None:
        task = export.reconstruct_photographs
    elif args.export_meshes:
        task = export.export_views
    else:
        task = training.train
    distributed.launch(task, devices, make_config(vars(args)))


if __name__ == "__main__":
    cli.run(main)
