"""Which picture of an annotation file is which photograph, whatever folders and spelling it uses."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from data.image_files import HEIC_SUFFIXES, RAW_SUFFIXES, SUFFIXES

_SUFFIXES = {*SUFFIXES, *HEIC_SUFFIXES, *RAW_SUFFIXES, ".avif", ".gif", ".json", ".txt", ".npy"}
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # put before names by Label Studio
_VERSION = re.compile(r"_(jpg|jpeg|png|webp|bmp)\.rf\.[0-9a-f]+$")  # put behind them by Roboflow

Parts = tuple[str, ...]


def match_pictures(
    photographs: Sequence[Path], names: Iterable[str]
) -> tuple[dict[Path, list[str]], dict[Path, str]]:
    """Finds the names of photographs in an annotation file.

    Suffixes and outer folders may differ. Names are compared exactly first, then unescaped and
    without regard to case, then without what tools put around them; what one photograph has taken
    is not offered to others. Of several in different folders, that in the same folders is taken.

    Args:
        photographs: paths of all photographs of a collection.
        names: pictures as the file spells them.

    Returns:
        The names of each photograph that has any; why others have none, where there was a choice.
    """
    # By folders and name, as a file may spell the same picture in several ways
    spelled: dict[Parts, list[str]] = defaultdict(list)
    for name in names:
        spelled[_parts(name)].append(name)
    own = {photograph: _parts(photograph.as_posix()) for photograph in photographs}
    taken: dict[Path, Parts] = {}
    reasons: dict[Path, str] = {}
    for normalize in (_exact, _unescaped, _bare):
        # The places that are left, by what their names mean
        occupied = set(taken.values())
        table: dict[str, list[Parts]] = defaultdict(list)
        for parts in (parts for parts in spelled if parts not in occupied):
            table[normalize(parts[-1])].append(parts)
        # Each photograph claims the nearest, which may be claimed by others as well
        claims: dict[Parts, list[Path]] = defaultdict(list)
        for photograph in (p for p in photographs if p not in taken and p not in reasons):
            nearest = _nearest(own[photograph], table.get(normalize(own[photograph][-1]), []))
            if len(nearest) > 1:
                listed = ", ".join("/".join(parts) for parts in nearest[:3])
                reasons[photograph] = f"may be any of {listed}: arrange it in the same folders"
            elif nearest:
                claims[nearest[0]].append(photograph)
        for parts, claimants in claims.items():
            _settle(parts, claimants, own, taken, reasons)
    return {photograph: spelled[parts] for photograph, parts in taken.items()}, reasons


def _settle(
    parts: Parts,
    claimants: list[Path],
    own: dict[Path, Parts],
    taken: dict[Path, Parts],
    reasons: dict[Path, str],
) -> None:
    """Gives a name to that of some photographs which shares most folders with it."""
    shared = [_shared(parts, own[photograph]) for photograph in claimants]
    winners = [p for p, count in zip(claimants, shared, strict=True) if count == max(shared)]
    if len(winners) == 1:
        taken[winners[0]] = parts
        return
    # A tie stays open, because a wrong mask is worse than none
    for photograph in winners:
        others = ", ".join(str(other) for other in winners[:3] if other != photograph)
        reasons[photograph] = f"may be {'/'.join(parts)}, and so may {others}: rename one"


def _parts(name: str) -> Parts:
    """Returns folders and name, without suffixes, of a path or address as any system writes it."""
    query = re.search(r"[?&]d=([^&]+)", name)  # local files of Label Studio
    name = query[1] if query else re.sub(r"(?<=\w)\?[\w=&%-]*$", "", name)
    *folders, last = PureWindowsPath(name).parts or ("",)
    # Some tools append their suffix to that of the photograph
    while PurePosixPath(last).suffix.lower() in _SUFFIXES:
        last = PurePosixPath(last).stem
    return (*(unicodedata.normalize("NFC", unquote(folder)) for folder in folders), last)


def _exact(name: str) -> str:
    return name


def _unescaped(name: str) -> str:
    """Returns a name with escapes like %20 resolved, in one Unicode form and one case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", unquote(name)).casefold())


def _bare(name: str) -> str:
    """Returns a name without what tools put around it, numbers without zeros before them."""
    name = _VERSION.sub("", _UPLOAD.sub("", _unescaped(name)))
    return str(int(name)) if name.isascii() and name.isdigit() else name


def _nearest(own: Parts, places: list[Parts]) -> list[Parts]:
    """Returns those of some places that end in most of the folders of a photograph."""
    most = max((_shared(parts, own) for parts in places), default=0)
    return [parts for parts in places if _shared(parts, own) == most]


def _shared(parts: Parts, own: Parts) -> int:
    """Returns how many of the innermost folders are the same."""
    pairs = zip(reversed(parts[:-1]), reversed(own[:-1]), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
