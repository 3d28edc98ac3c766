"""Builds the wheel: the repository's packages and scripts inside one package, `textured_mesh_gan`.

Here they lie side by side and import each other by their own names, `from utils import cli`. Beside
other people's code such names would collide, so the wheel holds copies whose imports begin with the
name of the package: `from textured_mesh_gan.utils import cli`. Nothing else about the code changes
but the commands in messages, `python remesh.py` being `textured-mesh-gan remesh` there.

hatchling calls `Namespace` (see pyproject.toml): `pip install .` or `pip wheel --no-deps .`.
"""

import ast
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "textured_mesh_gan"
COMMAND = "textured-mesh-gan"
PACKAGES = ("data", "geometry", "mesh_templates", "models", "pipeline", "rendering", "utils")
SHIPPED = (  # files that are no code, at the same place as here
    "LICENSE",
    "cache/remeshed_templates/*/*.pth",
    "mesh_templates/*.obj",
    "mesh_templates/classes/*.obj",
    "rendering/viewer/*",
)


def sources(root: Path) -> Iterator[Path]:
    """Yields the files with code, relative to the repository."""
    for pattern in ("*.py", *(f"{package}/**/*.py" for package in (NAME, *PACKAGES))):
        yield from (path.relative_to(root) for path in sorted(root.glob(pattern)))


def write_package(root: Path, folder: Path) -> None:
    """Writes the package that the repository `root` is, as a new folder."""
    code = list(sources(root))
    modules = {".".join(path.with_suffix("").parts) for path in code if path.parts[0] != NAME}
    for path in code:
        target = folder / (path.relative_to(NAME) if path.parts[0] == NAME else path)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = name_commands((root / path).read_text(encoding="utf-8"), modules)
        target.write_text(move_imports(text, str(path), modules), encoding="utf-8")
    for path in (path for pattern in SHIPPED for path in sorted(root.glob(pattern))):
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def move_imports(source: str, name: str, modules: set[str]) -> str:
    """Returns code that imports the project's modules from the package.

    Args:
        source: the code.
        name: of its file, for errors.
        modules: dotted names of the project's modules, as the repository imports them.

    Raises:
        SyntaxError: for `import utils.cli`, which has no equivalent of one word for all its uses.
    """
    tops = {module.partition(".")[0] for module in modules}
    lines = source.encode().splitlines(keepends=True)  # syntax trees count columns in bytes
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Import) and tops & {x.name.partition(".")[0] for x in node.names}:
            raise SyntaxError(f"{name}, line {node.lineno}: write `from package import module`")
        # Imports with leading dots are right wherever the package lies
        if not isinstance(node, ast.ImportFrom) or node.level or not node.module:
            continue
        if node.module.partition(".")[0] in tops:
            line, end = lines[node.lineno - 1], node.col_offset + len("from ")
            assert line[node.col_offset : end] == b"from ", f"{name}, line {node.lineno}"
            lines[node.lineno - 1] = line[:end] + f"{NAME}.".encode() + line[end:]
    return b"".join(lines).decode()


def name_commands(source: str, modules: set[str]) -> str:
    """Returns code whose messages name the commands of an installed package."""
    scripts = "|".join(sorted(module for module in modules if "." not in module))
    text = re.sub(rf"\bpython ({scripts})\.py\b", rf"{COMMAND} \1", source)
    return re.sub(r"\bpython -m (data\.\w+)\b", rf"{COMMAND} \1", text)


class Namespace(BuildHookInterface):
    """Puts the package into the wheel; archives of the sources need none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Writes the package into a temporary folder, which hatchling packs."""
        if self.target_name != "wheel":
            return
        if version == "editable":
            raise ValueError("the repository runs in place, so install it without --editable")
        self.folder = Path(tempfile.mkdtemp())
        write_package(Path(self.root), self.folder / NAME)
        build_data["force_include"][str(self.folder / NAME)] = NAME

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the folder."""
        if self.target_name == "wheel":
            shutil.rmtree(self.folder)
