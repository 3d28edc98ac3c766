"""The table at the end of demo.sh: what each stage took, and how good its result is.

Reads the durations that demo.sh notes and the metrics that the stages write.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.cache.folders import cache_folder
from utils import cli
from utils.files import read_json, require_file
from utils.run_directory import RunDirectory, configure_logging

logger = logging.getLogger(__name__)

_REMEDY = "It is written by ./demo.sh, which calls this report at its end."


def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    # fmt: off
    parser = cli.Parser(prog="python -m scripts.demo_report", description=__doc__)
    parser.add_argument("--dataset", type=cli.run_name, required=True, metavar="NAME", help="the demo's dataset")
    parser.add_argument("--name", type=cli.run_name, required=True, metavar="RUN", help="name of its two runs")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder with durations.tsv; report.txt goes there")
    # fmt: on
    return parser


def read_durations(path: Path) -> dict[str, float]:
    """Returns seconds by stage, in the order of the stages; repeated runs of a stage add up."""
    seconds: dict[str, float] = {}
    for line in require_file(path, _REMEDY).read_text(encoding="utf-8").splitlines():
        stage, _, duration = line.partition("\t")
        seconds[stage] = seconds.get(stage, 0.0) + float(duration)
    return seconds


def read_qualities(dataset: str, name: str) -> dict[str, str]:
    """Returns the quality of the result of every stage that has a measure of it, in words."""
    # Poses are compared with the truth that synthetic photographs have
    poses = read_json(cache_folder(dataset) / "metrics.json", _REMEDY)
    first, second = poses["step1"]["singletpl"], poses["step2"]["singletpl"]
    reconstruction = _latest(f"checkpoints_recon/{name}", "soft_iou")  # only of evaluations
    generation = _latest(f"checkpoints_gan/{name}", "proxy")
    return {
        "photographs": f"{first['images']} images",
        "poses, step 1": _describe_rotation(first),
        "poses, step 2": _describe_rotation(second),
        "reconstruction, evaluated": f"IoU {reconstruction['iou']:.3f}",
        "GAN, evaluated": f"proxy distance (not FID) {generation['proxy']:.1f}",
    }


def format_table(seconds: Mapping[str, float], qualities: Mapping[str, str]) -> str:
    """Returns the table: stage, time as minutes:seconds, quality."""
    rows = [("stage", "time", "quality")]
    rows += [(stage, _clock(taken), qualities.get(stage, "")) for stage, taken in seconds.items()]
    rows.append(("all", _clock(sum(seconds.values())), ""))
    # The first two columns are aligned; nothing follows the third
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    return "\n".join(lines)


def _latest(folder: str, metric: str) -> dict[str, Any]:
    """Returns a run's last record of a metric."""
    require_file(folder, _REMEDY)
    # Runs append to the same file, so that the last record counts
    records = [record for record in RunDirectory(folder).records() if metric in record]
    if not records:
        raise cli.UserError(f"{folder}/metrics.jsonl has no {metric!r}. {_REMEDY}")
    return records[-1]


def _describe_rotation(figures: Mapping[str, Any]) -> str:
    kept = figures["rotation_of_kept"]
    return (
        f"{figures['kept']} of {figures['images']} kept, rotation error of these: "
        f"median {kept['median_degrees']:.1f} degrees, {kept['share_under_30']:.0%} under 30"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table and writes it to report.txt in the output folder."""
    args = build_parser().parse_args(argv)
    configure_logging()
    durations = read_durations(args.output / "durations.tsv")
    table = format_table(durations, read_qualities(args.dataset, args.name))
    (args.output / "report.txt").write_text(table + "\n", encoding="utf-8")
    logger.info("\n%s\n\nMeshes and their picture are in %s/", table, args.output)


if __name__ == "__main__":
    cli.run(main)
