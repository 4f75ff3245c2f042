"""``anomaly-ov schema``: the JSON Schema of the published record, and the function that makes it."""

from __future__ import annotations

import json
from typing import Any, get_args

import typer

app = typer.Typer(add_completion=False)
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@app.command()
def schema() -> None:
    """Print the JSON Schema of one inspection record."""
    print(json.dumps(finding_schema(), indent=2))


def finding_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``Finding.to_json()``; fields are never removed under one version."""
    from anomaly_ov.records import SCHEMA, Level

    probability = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    return {
        "$schema": DIALECT,
        "$id": f"urn:{SCHEMA}",
        "title": "Finding",
        "description": "One inspection of one picture. Scores are null when the picture could not be read.",
        **_record(
            {
                "schema": {"const": SCHEMA},
                "id": _text("The picture as it was named"),
                "image": _image(),
                "model": _record({name: _text() for name in ("name", "revision", "device", "dtype")}),
                "score_raw": probability | {"description": "The expert head's score"},
                "score": probability | {"description": "Fused and calibrated; compared with the threshold"},
                "score_map": probability | {"description": "Mean of the map's highest values"},
                "threshold": _or_null(_record({"value": {"type": "number"}, "source": _text("How it was found")})),
                "anomalous": {"type": ["boolean", "null"]},
                "level": {"enum": [*get_args(Level), None], "description": "Of score_raw, bounds 0.3 and 0.7"},
                "map": _or_null(_map()),
                "regions": {"type": "array", "items": _region()},
                "timing_ms": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
                "error": _or_null(_record({name: _text() for name in ("type", "message", "hint")})),
                "score_expert": probability
                | {"description": "The expert's part of score; all of it without a context"},
                "score_context": probability | {"description": "The context's part of score; null without one"},
                "context": _context(),
                "answer": _or_null(_answer()),
            }
        ),
    }


def _record(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _or_null(schema_: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema_, {"type": "null"}]}


def _text(description: str = "") -> dict[str, Any]:
    return {"type": "string"} | ({"description": description} if description else {})


def _integers(count: int, minimum: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "integer", "minimum": minimum}, "minItems": count, "maxItems": count}


def _image() -> dict[str, Any]:
    size = {"type": ["integer", "null"], "minimum": 1}
    sha256 = {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"}
    return _record({"path": _text(), "width": size, "height": size, "sha256": sha256})


def _map() -> dict[str, Any]:
    return _record(
        {
            "path": {"type": ["string", "null"]},
            "grid": _integers(2, 1) | {"description": "Rows and columns before upscaling"},
        }
    )


def _context() -> dict[str, Any]:
    from anomaly_ov.records import ContextKind

    text, count = {"type": ["string", "null"]}, {"type": ["integer", "null"], "minimum": 0}
    return _record(
        {
            "kind": {
                "enum": list(get_args(ContextKind)),
                "description": "What else was looked at; with 'folder' scores depend on the other pictures of the run",
            },
            "source": text | {"description": "Where the references came from"},
            "references": count | {"description": "How many pictures serve as references"},
            "group": count | {"description": "Which kind of picture of a mixed folder, 0 the most frequent"},
            "distance": {
                "type": ["number", "null"],
                "minimum": 0,
                "description": "From the references, in multiples of what is usual among them",
            },
            "note": text | {"description": "Why there is no context, or no distance"},
        }
    )


def _answer() -> dict[str, Any]:
    count = {"type": ["integer", "null"], "minimum": 0}
    told = _record(
        {
            "text": _text("What a language model said of the picture; it may be wrong"),
            "p_yes": {"type": ["number", "null"], "minimum": 0, "maximum": 1, "description": "P(yes) against no"},
            "finish": _text("stop, length, or the endpoint's own word"),
            "tokens_in": count,
            "tokens_out": count,
            "timing_ms": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
        }
    )
    told["properties"]["contradiction"] = {  # not required: records of 0.1 have none
        "type": ["string", "null"],
        "description": "The record's verdict, where the text says the opposite",
    }
    return told


def _region() -> dict[str, Any]:
    unit = {"type": "number", "minimum": 0, "maximum": 1}
    counts = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    measured = _record(
        {
            "box": _integers(4) | {"description": "x0, y0, x1, y1 in image pixels; x1 and y1 exclusive"},
            "area": {"type": "integer", "minimum": 1, "description": "Pixels"},
            "score": unit | {"description": "Peak of the map inside"},
            "score_mean": unit,
            "rle": _record({"size": _integers(2, 1), "counts": counts})
            | {"description": "COCO run lengths, uncompressed: column by column, zeros first"},
        }
    )
    unit_step = {"type": "number", "minimum": -1, "maximum": 1}
    of_rgb = {"type": "array", "items": unit_step, "minItems": 3, "maxItems": 3}
    measured["properties"] |= {  # not required: records of 0.1 have none
        "contrast": _or_null(of_rgb) | {"description": "Mean red, green, blue inside minus around it, of 0..1"},
        "elongation": {"type": ["number", "null"], "minimum": 1, "description": "Long axis over short axis"},
    }
    return measured
