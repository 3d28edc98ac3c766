"""Decorators of the compiled loops and the place where their machine code is kept.

Kernels release the interpreter lock and are cached on disk: the first use on a machine compiles for
some seconds, later processes load. Numba renews a cached function when its own file changes, not
when a function that it calls changes; so the folder of the cache is named after the contents of all
kernel files.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_folder(source: Path) -> Path:
    """Chooses the first writable of: NUMBA_CACHE_DIR, beside the source, user cache, temporary.

    Args:
        source: folder of the kernels, `numba_*.py`.
    """
    contents = b"".join(path.read_bytes() for path in sorted(source.glob("numba_*.py")))
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    temporary = Path(tempfile.gettempdir()) / f"textured_mesh_gan_{os.getuid()}"
    places = [source / "__pycache__", user / "textured_mesh_gan", temporary]
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    for place in [Path(chosen), *places] if chosen else places:
        folder = place / f"kernels_{hashlib.sha256(contents).hexdigest()[:12]}"
        if _is_writable(folder):
            return folder
    raise OSError(f"no writable folder for compiled code; tried {', '.join(map(str, places))}")


numba.config.CACHE_DIR = str(cache_folder(Path(__file__).parent))  # decorators read it

compiled = njit(nogil=True, cache=True, error_model="numpy")
compiled_sums = njit(  # loops that may be summed in another order, so that they vectorize
    nogil=True,
    cache=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "nsz", "nnan", "ninf"},
)
