"""Stage 4: trains, evaluates and samples the GAN that generates textured meshes in UV space.

Examples:
  # Train; the same command resumes an interrupted run
  python run_generation.py --name new_cub_singletpl --dataset cub --batch_size 32 --num_discriminators 3 --epochs 800

  # Train a narrow network on a laptop
  python run_generation.py --name birds_singletpl --dataset photobirds --texture_resolution 128 --width 0.25 --batch_size 16 --iters 3000

  # In minutes, without training: means and modes of shapes and textures
  python run_generation.py --name birds_linear_singletpl --dataset photobirds --model linear --texture_resolution 128

  # Frechet inception distance of the best checkpoint
  python run_generation.py --name new_cub_singletpl --dataset cub --batch_size 64 --evaluate --which_epoch best

  # Forty meshes as .obj and .glb, a page to turn them on, and pictures of all of them
  python run_generation.py --name new_cub_singletpl --dataset cub --batch_size 10 --export_sample --how_many 40
"""

import argparse
from collections.abc import Sequence

from pipeline.all_stages.presets import add_preset_option
from utils import cli


# fmt: off
def build_parser() -> argparse.ArgumentParser:
    """Returns the parser; its defaults are the only ones."""
    parser = cli.Parser(description=__doc__)
    group = parser.add_argument_group("required")
    group.add_argument("--name", "--weights", type=cli.run_name, required=True, metavar="RUN", help="name of the run, a folder under checkpoints_gan/")
    group.add_argument("--dataset", type=cli.dataset_names, required=True, metavar="DATASET", help="folder under cache/ with the pseudo-ground-truth, several as in dogs,cats, or `all`")

    group = parser.add_argument_group("what to do (default: train)")
    group.add_argument("--evaluate", action="store_true", help="print the Frechet inception distance of a checkpoint")
    group.add_argument("--export_sample", dest="export_folder", action="store_const", const="output", help="write generated meshes and a picture of them to output/")
    group.add_argument("--save_results", dest="export_folder", action="store_const", const="results", help="the same to results/")
    group.add_argument("--export_morphs", action="store_true", help="export too: morphs.glb, the mean mesh with the strongest modes of shape as morph targets, and sliders of them on the page")
    group.add_argument("--interpolate", nargs=2, type=sample_of_seed, metavar="SEED[:N]", help="export too: walk.gif, which turns from the mesh of one seed to that of another, mesh 0 or N")
    group.add_argument("--swap", action="store_true", help="export too: every texture of the first four meshes on every shape of them, swap.png and swap_<shape>_<texture>.glb")
    group.add_argument("--part_colors", action="store_true", help="export too: the meshes in the colors of their parts, parts.png and mesh_<i>_parts.glb; needs the pseudo-ground-truth")
    group.add_argument("--how_many", type=cli.positive_int, metavar="N", help="meshes to export (default: the batch size)")
    group.add_argument("--overwrite", action="store_true", help="replace exported meshes of another seed or model")
    group.add_argument("--which_epoch", type=cli.checkpoint_choice, default="latest", metavar="N|latest|best", help="checkpoint to evaluate or to sample (default: %(default)s)")
    group.add_argument("--filter_class", metavar="CATEGORY", help="evaluate or sample one category, or one of several datasets, of a class-conditional model; or sample a label, such as robin, color=red, or robin,red")
    group.add_argument("--truncation_sigma", type=cli.positive_float, metavar="SIGMA", help="latent codes stay within this many standard deviations (default: 1; with --conditional_class 0.25 for species of cub, 0.75 for shape of p3d_car and 0.5 for its shape color)")
    group.add_argument("--inception_weights", metavar="FILE", help="ImageNet weights of torchvision's Inception v3 (default: torch's cache, else a download)")
    group.add_argument("--standard_fid", metavar="FILE", help="weights ported from TensorFlow's Inception of 2015: measure FID as other publications do")
    group.add_argument("--features", metavar="NAME[:FILE]", help="network of timm in whose features distances are measured, such as tf_efficientnet_lite0, and a file of its weights; FID is measured beside where --inception_weights or --standard_fid is given; not comparable with any FID")
    group.add_argument("--proxy_distance", action="store_true", help="distance in features of an untrained network instead of FID; not comparable with any FID")

    group = parser.add_argument_group("model (a checkpoint that is applied brings its own)")
    group.add_argument("--model", dest="kind", choices=["gan", "linear"], default="gan", help="what generates: networks, or means and modes of shapes and textures, which take minutes (default: %(default)s)")
    group.add_argument("--start_from", choices=["scratch", "linear"], default="scratch", help="linear: fit means and modes first, to which the networks then add what is missing; the first latent codes are theirs (default: %(default)s)")
    group.add_argument("--mode", choices=["autodetect", "singletpl", "multitpl"], default="autodetect", help="templates behind the pseudo-ground-truth (default: read off the name)")
    group.add_argument("--mesh_path", default="autodetect", metavar="SPHERE", help="topology: autodetect or uvsphere_{16,31,63}rings.obj (default: 31 rings, or 63 for maps of 64)")
    group.add_argument("--texture_resolution", type=int, choices=[128, 256, 512, 1024], default=512, help="texture size in texels (default: %(default)s)")
    group.add_argument("--mesh_resolution", type=int, choices=[32, 64], default=32, help="size of displacement maps, that of the pseudo-ground-truth: 64 are finer shapes (default: %(default)s)")
    group.add_argument("--width", type=cli.positive_float, default=1.0, metavar="FACTOR", help="factor on all channel counts, 1 = the paper's (default: %(default)s)")
    group.add_argument("--latent_dim", type=cli.positive_int, default=64, metavar="N", help="size of the latent code (default: %(default)s)")
    group.add_argument("--num_discriminators", type=int, choices=[2, 3], help="scales of the discriminator (default: 3 from 512 texels on, else 2)")
    group.add_argument("--symmetric_g", action=argparse.BooleanOptionalAction, default=True, help="generate half of each map and mirror it (the only mode)")
    group.add_argument("--norm_g", choices=["syncbatch", "batch", "instance", "none"], default="syncbatch", help="normalization of the generator (default: %(default)s)")
    group.add_argument("--norm_d", choices=["instance", "none"], default="none", help="normalization of the discriminator (default: %(default)s)")
    group.add_argument("--conditional_class", nargs="*", metavar="SET", help="condition on the category or, with names of label sets of the collection, on their labels")
    group.add_argument("--conditional_semantics", action="store_true", help="condition on the part segmentation in UV space")
    group.add_argument("--texture_only", action="store_true", help="generate textures for the meshes of the pseudo-ground-truth")

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=cli.positive_int, metavar="N", help="passes over the data (default: 600)")
    group.add_argument("--iters", type=cli.positive_int, metavar="N", help="steps of either network, instead of --epochs")
    group.add_argument("--batch_size", type=cli.positive_int, default=32, metavar="N", help="samples per step over all devices (default: %(default)s)")
    group.add_argument("--held_out", type=cli.fraction, default=0.0, metavar="SHARE", help="share of the photographs that are kept for the evaluation, evenly spaced; a model remembers it (default: %(default)s)")
    group.add_argument("--loss", choices=["hinge", "ls", "original"], default="hinge", help="adversarial loss (default: %(default)s)")
    group.add_argument("--mask_output", action=argparse.BooleanOptionalAction, default=True, help="score only where the real texture was observed")
    group.add_argument("--mesh_regularization", type=cli.non_negative_float, default=0.0001, metavar="WEIGHT", help="weight of the flatness loss (default: %(default)s)")
    group.add_argument("--augment", type=cli.fraction, default=0.0, metavar="P", help="recolor, turn and partly hide what the discriminator sees, each with this probability; for few photographs (default: %(default)s)")
    group.add_argument("--r1_weight", type=cli.non_negative_float, default=0.0, metavar="WEIGHT", help="weight of the squared gradient of real samples' scores, every 16 discriminator steps (default: %(default)s)")
    group.add_argument("--lr_g", type=cli.learning_rate, default=0.0001, metavar="RATE", help="learning rate of the generator (default: %(default)s)")
    group.add_argument("--lr_d", type=cli.learning_rate, default=0.0004, metavar="RATE", help="learning rate of the discriminator (default: %(default)s)")
    group.add_argument("--lr_decay_after", type=cli.positive_int, default=100000, metavar="EPOCH", help="from this epoch on the rates fall linearly to 0 (default: %(default)s)")
    group.add_argument("--d_steps_per_g", type=cli.positive_int, default=2, metavar="N", help="discriminator steps per generator step (default: %(default)s)")
    group.add_argument("--g_running_average_alpha", type=cli.fraction, default=0.999, metavar="DECAY", help="decay of the averaged generator (default: %(default)s)")
    group.add_argument("--warmup_steps", type=cli.non_negative_int, default=0, metavar="N", help="steps in which the generator is also drawn to the mean of the data, less and less; shortens small runs (default: %(default)s)")
    group.add_argument("--bfloat16", action="store_true", help="convolve in bfloat16: about twice as fast where the processor has units for it")
    group.add_argument("--continue_train", action="store_true", help="accepted for compatibility: the same command always resumes")
    group.add_argument("--num_workers", type=cli.non_negative_int, default=4, metavar="N", help="processes that load data (default: %(default)s)")

    group = parser.add_argument_group("output; intervals are steps with --iters, else epochs")
    group.add_argument("--checkpoint_freq", type=cli.positive_int, metavar="N", help="between numbered checkpoints (default: 20 epochs; with --iters 30 in all)")
    group.add_argument("--save_freq", type=cli.positive_int, metavar="N", help="between saves of the latest state (default: 5 epochs)")
    group.add_argument("--keep_checkpoints", type=cli.positive_int, default=3, metavar="N", help="numbered checkpoints that stay: the newest, and the best one (default: %(default)s)")
    group.add_argument("--evaluate_freq", type=cli.positive_int, metavar="N", help="between evaluations (default: 20 epochs; with --iters 30 in all)")
    group.add_argument("--tensorboard", action="store_true", help="write curves and pictures to tensorboard_gan/")
    cli.add_common_options(parser)
    add_preset_option(parser, "run_generation")
    return parser
# fmt: on


def sample_of_seed(text: str) -> tuple[int, int]:
    """Option type: "3" -> (3, 0) and "3:5" -> (3, 5), a seed and the number of a mesh."""
    seed, _, number = text.partition(":")
    return cli.non_negative_int(seed), cli.non_negative_int(number or "0")


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses combinations that have no meaning."""
    if args.epochs and args.iters:
        parser.error("--epochs and --iters exclude each other")
    # Accepted because published commands have it, but there is only one way to generate
    if not args.symmetric_g:
        parser.error("--no-symmetric_g: only mirror-symmetric generation is supported")
    # An option without effect is a mistake: the user expects it to do something
    if args.filter_class and not (
        args.conditional_class is not None and (args.evaluate or args.export_folder)
    ):
        parser.error("--filter_class needs --conditional_class, and --evaluate or --export_sample")
    if args.num_discriminators == 3 and args.texture_resolution < 512:
        parser.error("--num_discriminators 3 needs --texture_resolution 512 or 1024")
    if args.kind == "linear" and (args.conditional_semantics or args.texture_only):
        parser.error("--model linear knows neither --conditional_semantics nor --texture_only")
    if args.start_from == "linear" and (args.conditional_semantics or args.texture_only):
        parser.error("--start_from linear knows neither --conditional_semantics nor --texture_only")
    if args.kind == "linear" and args.start_from == "linear":
        parser.error("--start_from linear is for --model gan: --model linear is that already")
    if args.kind == "linear" and (args.epochs or args.iters):
        parser.error("--model linear is fitted at once, without --epochs or --iters")
    if args.held_out > 0.5:
        parser.error("--held_out keeps at most half of the photographs: expected 0 to 0.5")
    # Each names the network whose features are compared
    if args.standard_fid and args.proxy_distance:
        parser.error("--standard_fid and --proxy_distance exclude each other")
    if args.evaluate and args.export_folder:
        parser.error("--evaluate and --export_sample, or what belongs to it, exclude each other")
    if args.overwrite and not args.export_folder:
        parser.error("--overwrite needs --export_sample")
    if args.how_many and not args.export_folder:
        parser.error("--how_many needs --export_sample")
    if args.which_epoch == "best" and not (args.evaluate or args.export_folder):
        parser.error("--which_epoch best needs --evaluate or --export_sample")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the options and runs one of the three tasks."""
    parser = build_parser()
    args = parser.parse_args(argv)
    # What belongs to an export asks for one
    if args.export_morphs or args.interpolate or args.swap or args.part_colors:
        args.export_folder = args.export_folder or "output"
    check_options(parser, args)
    # Only now: PyTorch takes seconds to load, --help and mistakes need not wait for it
    from pipeline.generation import evaluation, export, training
    from pipeline.generation.config import make_config
    from pipeline.generation.linear import stage
    from utils import distributed

    devices = distributed.resolve_devices(args.gpu_ids)
    args.bfloat16 = distributed.use_bfloat16(args.bfloat16, devices)
    config = make_config(vars(args))
    if args.export_folder:
        task = export.export_sample
    elif args.evaluate:
        task = evaluation.evaluate
    else:
        task = stage.fit if args.kind == "linear" else training.train
    distributed.launch(task, devices, config)


if __name__ == "__main__":
    cli.run(main)
