"""What a reader of a run's figures should know beside them: what was left out, and which figures say little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anomaly_ov.errors import AnomalyOVError, DataError, EndpointError
from anomaly_ov.images.messages import printable
from anomaly_ov_lab.evaluation.figures import Figures
from anomaly_ov_lab.evaluation.run_folder import Row

FEW = 10
"""With fewer pictures of a label bootstrap intervals are too narrow: of AUROC, 95 % intervals hold the truth in 78 % of
sets with 3 normal and 30 anomalous pictures, in 39 % with 1, in 94 % with 10 (300 simulated sets, normal scores)."""
ENDPOINT_HINT = "check the server's address, the model's name there, and what it answers"
_SHOWN = 3


def notes_of(
    rows: Sequence[Row], categories: Sequence[Figures], conflicting: Sequence[str], without_map: int
) -> Iterator[str]:
    """One line per thing to know. ``conflicting``: ids of copies that bear both labels; ``without_map``: how many
    pictures should have a map and have none."""
    failed = [row for row in rows if row.error is not None]
    for kind, own in (
        ("could not be read, left out", [row for row in failed if not _unanswered(row)]),
        ("not answered, left out", [row for row in failed if _unanswered(row)]),
    ):
        if own:
            yield named(kind, [f"{row.id} ({row.error})" for row in own])
    undefined = [figures.name for figures in categories if not (figures.normal and figures.anomalous)]
    if undefined:
        yield named("one label only, undefined", undefined)
    few = [figures.name for figures in categories if 0 < min(figures.normal, figures.anomalous) < FEW]
    if few:
        yield named(f"fewer than {FEW} pictures of a label, intervals too narrow", few)
    if conflicting:
        yield named("identical files with both labels, left out of the distinct ones", conflicting)
    if without_map:
        yield f"the detector gave no map, left out of pixel metrics: {without_map}"


def named(kind: str, names: Sequence[str]) -> str:
    """One line with how many there are and the first names, odd characters escaped."""
    return f"{kind}: {len(names)} ({', '.join(map(printable, names[:_SHOWN]))})"


def nothing_scored(rows: Sequence[Row]) -> AnomalyOVError:
    """What to raise where not one picture has a score."""
    unanswered = [row for row in rows if _unanswered(row)]
    first = printable((unanswered or rows)[0].error or "no error")
    if unanswered:
        return EndpointError(f"none of the {len(rows)} pictures was answered: {first}", hint=ENDPOINT_HINT)
    return DataError(f"none of the {len(rows)} pictures could be read: {first}", hint="'data check' names all of them")


def _unanswered(row: Row) -> bool:
    """Whether the picture was read, but a remote model gave no answer."""
    return (row.error or "").startswith(EndpointError.__name__)
