"""The published record as the OpenAPI document describes it, made from ``records`` so that the two cannot differ."""

from __future__ import annotations

from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, Field, create_model

from anomaly_ov import records
from anomaly_ov.records import IN_MEMORY, SCHEMA, Finding

_FIELDS: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(Finding).items() if name not in IN_MEMORY}
_SCHEMA: dict[str, Any] = {"schema_": (Literal[SCHEMA], Field(alias="schema"))}

Record: type[BaseModel] = create_model("Record", __doc__=records.__doc__, **_SCHEMA, **_FIELDS)
"""``Finding.to_json()``."""
