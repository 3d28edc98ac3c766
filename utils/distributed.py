"""Devices and processes: one device runs in the calling process, several get one process each."""

import logging
import os
import pickle
import re
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    spawn,
)

from utils import interrupts
from utils.cli import Terminated, UserError, mistake_behind, repeat_lost_signals

logger = logging.getLogger(__name__)

CPU_INFO = Path("/proc/cpuinfo")  # of Linux

_working_alone = False


def resolve_devices(gpu_ids: Sequence[int | str] | None) -> list[torch.device]:
    """Returns the devices that --gpu_ids asks for.

    Args:
        gpu_ids: GPU numbers, or "cpu" once per process; None takes GPU 0 if there is one, else the
            CPU (all GPUs when started by torchrun, which gives each process its own).

    Raises:
        UserError: if a GPU is asked for that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # One GPU, unless torchrun has started a process for each
    if gpu_ids is None:
        available = range(count if _in_torchrun() else min(count, 1))
        return [torch.device("cuda", i) for i in available] or [torch.device("cpu")]
    # Missing GPUs are refused here, where the error can name the option
    missing = [i for i in gpu_ids if i != "cpu" and int(i) >= count]
    if missing:
        asked = ",".join(map(str, gpu_ids))
        there = "no GPU" if count == 0 else f"{count} GPU{'s' * (count > 1)} (0-{count - 1})"
        raise UserError(
            f"--gpu_ids {asked}: this machine has {there} that PyTorch can use. "
            "Name another, or use --gpu_ids cpu."
        )
    return [torch.device("cpu") if i == "cpu" else torch.device("cuda", int(i)) for i in gpu_ids]


def use_bfloat16(asked: bool, devices: Sequence[torch.device], cpu_info: Path = CPU_INFO) -> bool:
    """Returns whether to convolve in bfloat16: if asked for, and not on a processor without units for it.

    Such a processor emulates them, and a cycle of the GAN takes minutes; a warning says so.

    Args:
        asked: the option.
        devices: those that are used.
        cpu_info: file in which the system lists what the processor has; where there is none, the
            option is believed.
    """
    if not asked or devices[0].type != "cpu" or not cpu_info.exists():
        return asked
    # The words of x86, then of ARM
    if re.search(r"\b(avx512_bf16|amx_bf16|bf16|svebf16)\b", cpu_info.read_text()):
        return True
    logger.warning("--bfloat16 is left out: this processor has no units for it and would be slower")
    return False


def launch(function: Callable[..., Any], devices: Sequence[torch.device], *args: Any) -> Any:
    """Calls `function(device, *args)` on every device and returns the result of the first.

    One device runs in this process, which keeps debuggers and tracebacks useful; several get a
    spawned process each, so `function` must be importable and `args` picklable. Inside torchrun
    this process is one of the ranks and takes the device of its local rank.

    Raises:
        UserError: if a process raised one. Other exceptions of a process arrive with their text.
    """
    if _in_torchrun():
        return _run_torchrun_rank(function, devices, args)
    if len(devices) == 1:
        _select(devices[0])
        return function(devices[0], *args)
    with tempfile.TemporaryDirectory(prefix="processes_") as folder:
        _spawn(function, devices, args, Path(folder))
        return pickle.loads((Path(folder) / "result").read_bytes())


def rank() -> int:
    """Returns the number of this process among those of the run, from 0."""
    return torch.distributed.get_rank() if _is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes of the run."""
    return torch.distributed.get_world_size() if _is_initialized() else 1


def is_main() -> bool:
    """Returns whether this process is the one that logs and writes."""
    return rank() == 0


def barrier() -> None:
    """Waits for all processes of the run."""
    if _is_initialized():
        torch.distributed.barrier()


def all_reduce_(tensor: torch.Tensor) -> torch.Tensor:
    """Replaces the tensor by its sum over all processes, in place, and returns it."""
    if _is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replaces every gradient by its mean over all processes, with one exchange for all of them."""
    if not _is_initialized():
        return
    # One exchange of a flat vector is much faster than one for each parameter
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = all_reduce_(torch.cat([g.flatten() for g in gradients])) / world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean(values: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Returns the means over all processes of scalars; every process names the same ones."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().double() for value in values.values()])
    means = all_reduce_(stacked.cpu()) / world_size()
    return dict(zip(values, means.tolist(), strict=True))


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set in one of the processes, on each of them."""
    return flag if world_size() == 1 else bool(all_reduce_(torch.tensor(float(flag))))


def gather(value: Any) -> list[Any]:
    """Returns the picklable values of all processes, in the order of their ranks, on each of them."""
    values = [value] * world_size()
    if _is_initialized():
        torch.distributed.all_gather_object(values, value)
    return values


def concatenate(rows: torch.Tensor) -> torch.Tensor:
    """Returns the rows (B, ...) of all processes, in the order of their ranks, on each of them."""
    if world_size() == 1:
        return rows
    return torch.cat(gather(rows.cpu())).to(rows.device)


def require_even_split(batch_size: int) -> None:
    """Refuses a batch that the processes cannot share evenly.

    Raises:
        UserError: names a multiple.
    """
    if batch_size % (processes := world_size()):
        raise UserError(
            f"--batch_size {batch_size}: cannot be split evenly over {processes} processes. "
            f"Use a multiple of {processes}."
        )


def shard(count: int) -> range:
    """Returns this process's contiguous part of range(count); the parts differ by one at most."""
    return range(count * rank() // world_size(), count * (rank() + 1) // world_size())


@contextmanager
def alone() -> Iterator[None]:
    """Lets this process work as if it were the only one, while the others wait for it."""
    global _working_alone
    _working_alone = True
    try:
        yield
    finally:
        _working_alone = False


def _is_initialized() -> bool:
    return (
        not _working_alone
        and torch.distributed.is_available()
        and torch.distributed.is_initialized()
    )


def _in_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and "LOCAL_RANK" in os.environ


def _run_torchrun_rank(function: Callable, devices: Sequence[torch.device], args: tuple) -> Any:
    local_rank = int(os.environ["LOCAL_RANK"])
    # Ranks beyond the number of GPUs would have to share one, which NCCL refuses
    if devices[0].type == "cuda" and local_rank >= len(devices):
        raise UserError(
            f"torchrun started more processes than this machine has GPUs ({len(devices)}). "
            f"Use --nproc_per_node {len(devices)} or --gpu_ids cpu."
        )
    device = devices[local_rank % len(devices)]
    _select(device)
    torch.distributed.init_process_group(_communication(device))
    try:
        return function(device, *args)
    finally:
        torch.distributed.destroy_process_group()


def _spawn(function: Callable, devices: Sequence[torch.device], args: tuple, folder: Path) -> None:
    """Starts the processes, waits for them, and ends them all when one of them fails."""
    # PyTorch would log the signals by which it ends the other processes
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    context: ProcessContext | None = None
    try:
        with interrupts.blocked():  # until the processes can report Ctrl-C in one line
            context = spawn(
                _run_child, (function, list(devices), args, folder), nprocs=len(devices), join=False
            )
        assert context is not None
        while not context.join():
            pass
        if (stop := _asked_to_end(folder)) is not None:
            raise stop
    except (ProcessRaisedException, ProcessExitedException) as error:
        if (stop := _asked_to_end(folder)) is not None:  # one process was, and the others failed
            raise stop from None
        # Either a process has left the message of a user error, or a process was lost
        mistakes = sorted(folder.glob("mistake_*"))
        if mistakes:
            raise UserError(os.fsdecode(mistakes[0].read_bytes())) from None
        assert context is not None
        if lost := _lost_process(context, error):
            raise UserError(
                f"{lost}, so the others were ended. If memory has run out, use a smaller "
                "--batch_size or fewer processes. Run the same command again to continue."
            ) from None
        raise
    finally:
        _end(context)


def _asked_to_end(folder: Path) -> KeyboardInterrupt | None:
    """Returns the signal that a process has obeyed; Ctrl-C counts first, which reaches all of them."""
    if (folder / "interrupted").exists():
        return KeyboardInterrupt()
    return Terminated() if (folder / "terminated").exists() else None


def _lost_process(context: ProcessContext, error: Exception) -> str:
    """Says which process has ended without an exception of its own; empty if none has.

    The others fail too, and may be noticed first.
    """
    codes = [process.exitcode or 0 for process in context.processes if process is not None]
    # Those that SIGTERM has ended were ended because of another one
    lost = [i for i, code in enumerate(codes) if code < 0 and code != -signal.SIGTERM]
    if not lost and isinstance(error, ProcessExitedException):
        lost = [error.error_index]
    if not lost:
        return ""
    code = codes[lost[0]]
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with status {code}"
    return f"Process {lost[0]} of {len(codes)} {how}"


def _end(context: ProcessContext | None) -> None:
    """Ends the processes; those that train save first, unless they are asked for a second time."""
    processes = [process for process in (context.processes if context else []) if process]
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise


def _run_child(
    index: int, function: Callable, devices: list[torch.device], args: tuple, folder: Path
) -> None:
    # Ctrl-C was blocked until this process could handle it
    interrupts.unblock()
    repeat_lost_signals()
    device = devices[index]
    _select(device)
    # The cores are divided among the processes
    torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
    torch.distributed.init_process_group(
        _communication(device),
        # The file itself, in bytes: an address would spell spaces and accents in another way
        store=torch.distributed.FileStore(  # pyright: ignore[reportPrivateImportUsage] - documented
            os.fsencode(folder / "rendezvous"),  # pyright: ignore[reportArgumentType] - as well
            len(devices),
        ),
        rank=index,
        world_size=len(devices),
    )
    # How the process ended is left in files, since its exceptions arrive as text
    try:
        result = function(device, *args)
    except Exception as error:
        if (mistake := mistake_behind(error)) is not None:
            (folder / f"mistake_{index}").write_bytes(os.fsencode(str(mistake)))
        raise
    except KeyboardInterrupt as stop:
        (folder / ("terminated" if isinstance(stop, Terminated) else "interrupted")).touch()
        raise
    finally:
        torch.distributed.destroy_process_group()
    if index == 0:
        (folder / "result").write_bytes(pickle.dumps(result))


def _communication(device: torch.device) -> str:
    return "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"


def _select(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
