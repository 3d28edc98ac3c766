"""The end of demo.sh: a table of what each stage took and how good its result is, and a page of all results.

Reads the durations that demo.sh notes, the metrics that the stages write, and their pictures.
"""

import html
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from data.cache.folders import cache_folder
from utils import cli
from utils.files import read_json, require_file, write_bytes
from utils.pictures import save_image
from utils.run_directory import RunDirectory, configure_logging

logger = logging.getLogger(__name__)

_COLUMNS, _ROWS = 6, 2  # of photographs on the page
_SIDE = 160  # pixels of each
_REMEDY = "It is written by ./demo.sh, which calls this report at its end."


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        title: heading.
        picture: name of the picture in the folder of the page.
        text: what one sees.
        link: page that shows more, relative to the folder; empty for none.
    """

    title: str
    picture: str
    text: str
    link: str = ""


SECTIONS = (
    Section("Photographs", "photographs.png", "Some of the photographs; each comes with its mask."),
    Section(
        "Poses",
        "poses.png",
        "The template under the poses of steps 1 and 2; the nose shows where the front is.",
    ),
    Section(
        "Photographs to meshes",
        "photographs_to_meshes.gif",
        "Meshes that the reconstruction network makes of single photographs.",
        "photographs/index.html",
    ),
    Section("Generated meshes", "generated.png", "Objects that do not exist.", "meshes/index.html"),
    Section("A walk through the latent space", "walk.gif", "From one object to another."),
)


def build_parser() -> cli.Parser:
    """Returns the parser of the options."""
    # fmt: off
    parser = cli.Parser(prog="python -m scripts.demo_report", description=__doc__)
    parser.add_argument("--dataset", type=cli.run_name, required=True, metavar="NAME", help="the demo's dataset")
    parser.add_argument("--name", type=cli.run_name, required=True, metavar="RUN", help="name of its two runs")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder with durations.tsv; report.txt and index.html go there")
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
        "generator, evaluated": f"proxy distance (not FID) {generation['proxy']:.1f}",
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


def save_photographs(paths: Sequence[Path], output: Path) -> None:
    """Writes photographs.png: some of the photographs, spread evenly over all."""
    sheet = Image.new("RGB", (_COLUMNS * _SIDE, _ROWS * _SIDE), "white")
    for i in range(min(_COLUMNS * _ROWS, len(paths))):
        photograph = Image.open(paths[i * len(paths) // min(_COLUMNS * _ROWS, len(paths))])
        tile = ImageOps.pad(photograph.convert("RGB"), (_SIDE, _SIDE), color="white")
        sheet.paste(tile, (i % _COLUMNS * _SIDE, i // _COLUMNS * _SIDE))
    save_image(output / "photographs.png", np.asarray(sheet))


def collect_pictures(dataset: str, name: str, output: Path) -> None:
    """Copies the pictures of SECTIONS, and the pages that they link to, into the output folder.

    Args:
        dataset: of the demo.
        name: of its two runs.
        output: folder of the page.

    Raises:
        UserError: if a stage has not written its picture or page.
    """
    save_photographs(sorted(Path("datasets", dataset, "images").iterdir()), output)
    meshes, exported = Path(f"output/{name}_meshes"), Path(f"output/{name}")
    copies = {
        f"output/{dataset}_poses_singletpl.png": "poses.png",
        meshes / "turntable.gif": "photographs_to_meshes.gif",
        f"output/{name}.png": "generated.png",
        exported / "walk.gif": "walk.gif",
    }
    for source, target in copies.items():
        shutil.copyfile(require_file(source, _REMEDY), output / target)
    # The pages hold their meshes; the files lie beside them
    for folder, target in ((meshes, "photographs"), (exported, "meshes")):
        require_file(folder / "index.html", _REMEDY)
        shutil.rmtree(output / target, ignore_errors=True)
        shutil.copytree(folder, output / target)


def write_page(output: Path, title: str, table: str) -> None:
    """Writes index.html with the pictures of SECTIONS and the table."""
    parts = []
    for section in SECTIONS:
        link = f' <a href="{section.link}">Turn them.</a>' if section.link else ""
        parts.append(
            f"<h2>{section.title}</h2>\n<p>{section.text}{link}</p>\n"
            f'<img src="{section.picture}" alt="{section.title}">'
        )
    template = Template(Path(__file__).with_name("demo_page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=html.escape(title), sections="\n".join(parts), table=html.escape(table)
    )
    write_bytes(output / "index.html", page.encode())


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
    """Prints the table, and writes it and the page to the output folder."""
    args = build_parser().parse_args(argv)
    configure_logging()
    durations = read_durations(args.output / "durations.tsv")
    table = format_table(durations, read_qualities(args.dataset, args.name))
    (args.output / "report.txt").write_text(table + "\n", encoding="utf-8")
    collect_pictures(args.dataset, args.name, args.output)
    write_page(args.output, f"From photographs to meshes: {args.dataset}", table)
    logger.info("\n%s\n\nAll results are shown by %s/index.html", table, args.output)


if __name__ == "__main__":
    cli.run(main)
