"""The one place where configuration is read and validated: mapping or YAML -> frozen dataclass -> mapping.

Unknown fields, wrong types and out-of-range values end in one ``ConfigError`` that names the field, the value and
what is allowed. Range checks live in each dataclass's ``__post_init__`` as plain ``ValueError``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from anomaly_ov.errors import ConfigError, MissingExtra

T = TypeVar("T")
MAX_CONFIG_BYTES = 4 * 2**20


def parse(cls: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """``values`` as an instance of the (frozen, stdlib) dataclass ``cls``; ``where`` names the source in errors."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    _forbid_unknown_fields(cls, ConfigDict(extra="forbid"))
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if not field:  # a rule over several fields; the whole configuration would not fit into one line
            raise ConfigError(f"{where}: {first['msg']}", hint="correct the file") from None
        allowed = ", ".join(sorted(f.name for f in dataclasses.fields(cls)))  # type: ignore[arg-type]
        hint = f"fields here: {allowed}" if first["type"] == "unexpected_keyword_argument" else "correct that field"
        raise ConfigError(f"{where}: field '{field}' = {first['input']!r}: {first['msg']}", hint=hint) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from ``path`` (safe loader, size limited). Raises ``ConfigError``, ``MissingExtra``."""
    try:
        import yaml
    except ImportError:
        raise MissingExtra("pyyaml", "lab") from None
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}", hint="see recipes/ for the committed ones")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes", hint="is this really a recipe?")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}", hint="correct the file"
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of fields", hint="see recipes/ for examples")
    return values


def to_mapping(config: Any) -> dict[str, Any]:
    """The JSON/YAML-ready form of a configuration dataclass (tuples become lists, paths strings)."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _forbid_unknown_fields(cls: Any, config: Any) -> None:
    """Sets pydantic's ``extra='forbid'`` on ``cls`` and on every dataclass among its field types."""
    if not dataclasses.is_dataclass(cls) or "__pydantic_config__" in cls.__dict__:
        return
    setattr(cls, "__pydantic_config__", config)  # noqa: B010  # an attribute that only pydantic knows
    import typing

    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *typing.get_args(hint)):
            _forbid_unknown_fields(part, config)
