"""Decorators for compiled loops, and the folder where their machine code is cached.

Kernels release the interpreter lock and are cached on disk: the first use on a machine takes some
seconds to compile, later processes load. Numba invalidates a cached function when its own file
changes, but not when a function that it calls changes. Hence the name of the cache folder is a hash of
all kernel files.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config
from numpy.typing import NDArray

Array = NDArray[Any]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Files with compiled loops, and the convention that they compile too
KERNELS = (
    *("utils/numba_*.py", "rendering/backends/numba_*.py", "pipeline/poses/numba_*.py"),
    "geometry/camera.py",
)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_folder(source: Path) -> Path:
    """Chooses the first writable of: NUMBA_CACHE_DIR, beside the source, user cache.

    If none is writable, every process compiles anew in a temporary folder.

    Args:
        source: folder of the repository, below which the kernels lie.
    """
    kernels = [path for pattern in KERNELS for path in sorted(source.glob(pattern))]
    # A change of any kernel gives a new folder
    contents = b"".join(path.read_bytes() for path in kernels)
    user = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    # From the most explicit place to the most general one
    places = [
        os.environ.get("NUMBA_CACHE_DIR"),
        source / "utils" / "__pycache__",
        f"{user}/textured_mesh_gan" if user[0] != "~" else None,  # users in containers have no home
    ]
    for place in filter(None, places):
        folder = Path(place) / f"kernels_{hashlib.sha256(contents).hexdigest()[:12]}"
        if _is_writable(folder):
            return folder
    return Path(tempfile.mkdtemp())


config.CACHE_DIR = str(cache_folder(Path(__file__).parents[1]))  # pyright: ignore[reportAttributeAccessIssue] - decorators read it

compiled: Decorator = njit(nogil=True, cache=True, error_model="numpy")
# For numbers that are finite, with products and sums in one instruction
compiled_finite: Decorator = njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz", "nnan", "ninf"}
)
# For sums whose terms may be reordered, so that they vectorize
compiled_sums: Decorator = njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "nsz", "nnan", "ninf"},
)
