"""Times a cycle of the GAN against the same networks in plain PyTorch: `python -m benchmarks.generation`.

A cycle is two steps of the discriminator and one of the generator, in single precision and full width.
Both run in turns, each turn in a process of its own, so that other work on the machine disturbs both and
the peaks of memory (on a GPU: of its memory) are theirs. Prints the medians and their ratios; the last
line is JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.plain_gan import PlainGan
from data.pseudo_ground_truth import UVSample
from geometry.sphere_mesh import SphereMesh
from pipeline.generation.config import GenerationConfig, make_config
from pipeline.generation.training import Gan, Update
from run_generation import build_parser as generation_parser
from utils import cli
from utils.threads import keep_freed_memory
from utils.training import Length

KINDS = ("plain", "ours")
_CYCLE = 3  # steps
_MESH = 32  # texels of displacement maps


# fmt: off
def build_parser() -> cli.Parser:
    """Returns the parser."""
    parser = cli.Parser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--resolutions", nargs="+", type=int, choices=(128, 256, 512), default=[128, 512], help="of the textures (default: 128 512)")
    parser.add_argument("--batch_size", type=cli.positive_int, default=8, metavar="B", help="default: %(default)s")
    parser.add_argument("--turns", type=cli.positive_int, default=3, metavar="N", help="processes of each kind (default: %(default)s)")
    parser.add_argument("--cycles", type=cli.positive_int, default=3, metavar="N", help="that are timed in a turn, after one that is not (default: %(default)s)")
    parser.add_argument("--threads", type=cli.positive_int, default=os.cpu_count() or 1, metavar="N", help="of PyTorch (default: one per core)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu", help="default: the GPU if there is one")
    parser.add_argument("--only", choices=KINDS, default=None, help="time one kind, in this process")
    return parser
# fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the options ask for."""
    options = build_parser().parse_args(argv)
    if options.only:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        make = {"plain": plain_cycle, "ours": our_cycle}[options.only]
        cycle = make(options.resolutions[0], options.batch_size, torch.device(options.device))
        cost = measure(cycle, options.cycles, torch.device(options.device))
        print(json.dumps(cost))  # noqa: T201
        return
    rows = []
    for resolution in options.resolutions:
        costs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _, kind in ((turn, kind) for turn in range(options.turns) for kind in KINDS):
            costs[kind].append(in_own_process(kind, resolution, options))
        medians = {
            kind: {key: statistics.median(c[key] for c in turns) for key in turns[0]}
            for kind, turns in costs.items()
        }
        rows.append({"resolution": resolution, **medians})
        print(describe(resolution, medians), flush=True)  # noqa: T201
    machine = {"torch": torch.__version__, "device": options.device, "threads": options.threads}
    print(json.dumps(machine | {"batch": options.batch_size, "rows": rows}))  # noqa: T201


def describe(resolution: int, costs: dict[str, dict[str, float]]) -> str:
    """Returns the line of a resolution: seconds and megabytes of both, and the ratio."""
    words = "  ".join(
        f"{kind} {cost['seconds']:.3f} s {cost['megabytes']:.0f} MB" for kind, cost in costs.items()
    )
    ratio = costs["plain"]["seconds"] / costs["ours"]["seconds"]
    return f"{resolution} texels, a cycle: {words}, {ratio:.2f} x as fast"


def in_own_process(kind: str, resolution: int, options: argparse.Namespace) -> dict[str, float]:
    """Returns what `measure` returns in a new process."""
    words = ["--only", kind, "--resolutions", str(resolution)]
    for name in ("batch_size", "cycles", "threads", "device"):
        words += [f"--{name}", str(getattr(options, name))]
    command = [sys.executable, "-m", "benchmarks.generation", *words]
    return json.loads(subprocess.check_output(command))


def measure(cycle: Callable[[int], object], cycles: int, device: torch.device) -> dict[str, float]:
    """Returns the median seconds of a cycle, without the first, and the peak of the process in MB."""
    on_gpu = device.type == "cuda"
    durations = []
    for number in range(cycles + 1):
        start = time.perf_counter()
        cycle(number)
        if on_gpu:
            torch.cuda.synchronize()  # kernels are only queued until then
        durations.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if on_gpu:
        peak = torch.cuda.max_memory_allocated() / 1e6
    return {"seconds": statistics.median(durations[1:]), "megabytes": peak}


def plain_cycle(resolution: int, batch_size: int, device: torch.device) -> Callable[[int], None]:
    """Returns a cycle of the plain networks."""
    gan = PlainGan(resolution, device)
    texture, alpha, mesh = (x.to(device) for x in random_maps(resolution, batch_size))
    return lambda _: gan.cycle(texture, alpha, mesh)


def our_cycle(resolution: int, batch_size: int, device: torch.device) -> Callable[[int], None]:
    """Returns a cycle as run_generation.py trains."""
    keep_freed_memory()
    config = configuration(resolution, batch_size)
    gan = Gan(config, 0, 0, device)
    update = Update(
        gan, SphereMesh(31).to(device), config, Length(epoch=1000, total=10**6, in_steps=True)
    )
    maps = random_maps(resolution, batch_size)
    none, zeros = torch.zeros(batch_size, 0, 1, 1), torch.zeros(batch_size, dtype=torch.int64)
    batch = UVSample(*(x.to(device) for x in (*maps, none, zeros, zeros)))

    def cycle(number: int) -> None:
        for step in range(_CYCLE * number, _CYCLE * (number + 1)):
            update(step, batch)

    return cycle


def configuration(resolution: int, batch_size: int) -> GenerationConfig:
    """Returns the defaults of run_generation.py."""
    words = f"--name benchmark_singletpl --dataset benchmark --batch_size {batch_size}"
    words += f" --texture_resolution {resolution}"
    return make_config(vars(generation_parser().parse_args(words.split())))


def random_maps(resolution: int, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns textures, alphas and displacement maps."""
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(0))
    alpha = (draw(batch_size, 1, resolution, resolution) > 0.5).float()
    texture = (2 * draw(batch_size, 3, resolution, resolution) - 1) * alpha
    return texture, alpha, 0.1 * draw(batch_size, 3, _MESH, _MESH)


if __name__ == "__main__":
    cli.run(main)
