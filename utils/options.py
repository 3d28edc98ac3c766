"""Options of a command as nested frozen records: each part of a program takes the piece that it uses."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

Record = TypeVar("Record")


def build(kind: type[Record], options: Mapping[str, Any]) -> Record:
    """Makes a record from the parsed options of its fields; fields that are records are built too.

    Args:
        kind: a dataclass.
        options: value of every option by name; those that no field asks for are ignored.

    Raises:
        KeyError: if an option is missing.
    """
    values = {
        field.name: build(field.type, options)
        if isinstance(field.type, type) and is_dataclass(field.type)
        else options[field.name]
        for field in fields(kind)  # type: ignore[arg-type] - a dataclass, whatever its name
    }
    return kind(**values)


def flatten(record: Any) -> dict[str, Any]:
    """Returns the options of a record and its pieces by name: what `build` made it from."""
    flat: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        flat |= flatten(value) if is_dataclass(value) else {field.name: value}
    return flat


def differences(now: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the options that differ from stored ones, as (stored, present); unknown ones are left out."""
    return {
        key: (stored[key], value)
        for key, value in now.items()
        if key in stored and _plain(stored[key]) != _plain(value)
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value  # as JSON stores it
