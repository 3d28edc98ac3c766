"""Where the machine code of compiled loops is kept, and when it is made again."""

import shutil
from pathlib import Path

import pytest

from utils import numba_jit
from utils.numba_jit import cache_folder


def test_machine_code_is_kept_where_one_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    source = tmp_path / "source"
    kernels = source / "rendering" / "backends" / "numba_loops.py"
    kernels.parent.mkdir(parents=True)
    kernels.write_text("first")
    beside = cache_folder(source)
    assert beside.parent == source / "utils" / "__pycache__"
    kernels.write_text("second")
    assert cache_folder(source) != beside
    shutil.rmtree(source / "utils" / "__pycache__")
    (source / "utils" / "__pycache__").write_text("a file in the way, as in a read-only folder")
    assert cache_folder(source).is_relative_to(tmp_path / "user")
    # Neither a variable nor the list of users names a home
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cache_folder(source).parent == tmp_path
    assert not (tmp_path / "~").exists()


def test_every_file_of_kernels_is_in_the_key_of_the_cache() -> None:
    root = Path(numba_jit.__file__).parents[1]
    using = {
        path
        for package in ("utils", "rendering", "pipeline", "geometry", "models", "data")
        for path in root.glob(f"{package}/**/*.py")
        if "@compiled" in path.read_text()
    }
    assert len(using) > 4
    assert using <= {path for pattern in numba_jit.KERNELS for path in root.glob(pattern)}
