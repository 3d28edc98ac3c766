import argparse
import errno
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from utils import cli


def end_of(statement: str) -> subprocess.CompletedProcess:
    """Runs a main that executes one statement, in a process of its own."""
    program = (
        "from utils import cli\n"
        "class Full(OSError): pass\n"
        f"def main():\n    {statement}\n"
        "cli.run(main)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("statement", "status", "line"),
    [
        ("raise cli.UserError('a\\nb\\x1b[2J')", 1, "error: a b?[2J"),
        ("raise KeyboardInterrupt", 130, "interrupted: run the same command again to continue"),
        (
            f"raise OSError({errno.ENOTDIR}, 'Not a directory', 'output/x')",
            1,
            "error: output/x cannot be used (Not a directory).",
        ),
        *(
            (
                f"raise {error}",
                1,
                f"error: memory has run out ({details}). Use a smaller --batch_size, --width or "
                "resolution, or fewer processes.",
            )
            for error, details in (
                ("MemoryError('Unable to allocate 7 TiB')", "Unable to allocate 7 TiB"),
                ("RuntimeError('CUDA out of memory.\\nx')", "CUDA out of memory. x"),
                ('RuntimeError("can\'t allocate memory")', "can't allocate memory"),
            )
        ),
        (
            f"raise OSError({errno.ENOSPC}, 'No space left on device', 'x.npz')",
            1,
            "error: no space left on the disk while writing x.npz. "
            "Free some, then run the command again.",
        ),
    ],
)
def test_expected_failures_end_with_one_line(statement, status, line):
    process = end_of(statement)
    assert (process.returncode, process.stderr, process.stdout) == (status, line + "\n", "")


@pytest.mark.parametrize(
    "statement",
    ["raise ValueError('shape')", "raise RuntimeError('x')", f"raise OSError({errno.EIO})"],
)
def test_our_own_defects_keep_their_traceback(statement):
    process = end_of(statement)
    assert process.returncode == 1
    assert "Traceback" in process.stderr


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_in_a_callback_from_c_is_obeyed_after_it(number, status):
    """C knows no exceptions, so that Python drops those of a callback."""
    process = end_of(
        "import ctypes, os, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    callback = ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.{number}))\n"
        "    callback(); time.sleep(20)"
    )
    assert process.returncode == status
    assert process.stderr.count("\n") == 1


def test_success_exits_with_status_zero():
    assert end_of("pass").returncode == 0


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (cli.positive_int, "3", 3),
        (cli.pixels, "256", 256),
        (cli.part_count, "4", 4),
        (cli.spread, "0.1", 0.1),
        (cli.non_negative_int, "0", 0),
        (cli.positive_float, "1e-4", 1e-4),
        (cli.non_negative_float, "0", 0.0),
        (cli.fraction, "0.25", 0.25),
        (cli.gigabytes, "0", 0.0),
        (cli.run_name, "new_cub_singletpl", "new_cub_singletpl"),
        (cli.gpu_ids, "0,1", (0, 1)),
        (cli.gpu_ids, "cpu", ("cpu",)),
        (cli.gpu_ids, "cpu,cpu", ("cpu", "cpu")),
    ],
)
def test_option_types_accept(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (cli.positive_int, "0"),
        (cli.pixels, "1"),
        (cli.pixels, "100000"),
        (cli.part_count, "1000"),
        (cli.spread, "1e30"),
        (cli.positive_int, "2.5"),
        (cli.non_negative_int, "-1"),
        (cli.positive_float, "0"),
        (cli.positive_float, "nan"),
        (cli.positive_float, "inf"),
        (cli.non_negative_float, "-0.5"),
        (cli.fraction, "1.5"),
        (cli.gigabytes, "1e300"),
        (cli.run_name, ""),
        (cli.run_name, " "),
        (cli.run_name, "a/b"),
        (cli.run_name, "a\\b"),
        (cli.run_name, ".."),
        (cli.run_name, ".hidden"),
        (cli.run_name, "-x"),
        (cli.run_name, "a\nb"),
        (cli.gpu_ids, ""),
        (cli.gpu_ids, "0,0"),
        (cli.gpu_ids, "0,cpu"),
        (cli.gpu_ids, "-1"),
        (cli.gpu_ids, "cuda:0"),
    ],
)
def test_option_types_refuse_and_say_what_they_got(kind, text):
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        kind(text)
    assert "expected" in str(refusal.value)
    assert repr(text) in str(refusal.value)


def make_parser() -> cli.Parser:
    parser = cli.Parser(description="x")
    parser.add_argument("--export_sample", action="store_true")
    parser.add_argument("--how_many", type=cli.positive_int)
    parser.add_argument("--symmetric", action=argparse.BooleanOptionalAction, default=True)
    cli.add_common_options(parser)
    return parser


def test_dashes_and_underscores_in_options_are_the_same():
    options = make_parser().parse_args(["--export-sample", "--how-many=4", "--no_symmetric"])
    assert options.export_sample
    assert options.how_many == 4
    assert not options.symmetric


def test_options_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args(["--export"])
    assert end.value.code == 2
    assert "unrecognized arguments: --export" in capsys.readouterr().err


def test_common_options_have_their_defaults():
    options = make_parser().parse_args([])
    assert (options.gpu_ids, options.seed, options.rasterizer) == (None, 1, "auto")


def test_mode_is_read_from_the_name_of_the_run():
    assert cli.mode_from_name("new_cub_multitpl", "autodetect") == "multitpl"
    assert cli.mode_from_name("new_cub_multitpl", "singletpl") == "singletpl"
    with pytest.raises(cli.UserError, match="such as new_cub_singletpl, or add --mode"):
        cli.mode_from_name("new_cub", "autodetect")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "3000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_wait_busily_for_a_short_time_unless_told(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: dict[str, str]
):
    monkeypatch.setattr("os.environ", dict(environment))
    cli.spin_little()
    assert os.environ == expected
