"""Which module holds which verb of ``anomaly-ov``: our own by a table, those of other distributions by entry points.

A target is "module:attribute" and names a Typer application. Nothing is imported here: ``main`` imports a target when
its verb is used, or when ``--help`` lists it. Our own verbs are no entry points, because a checkout that is run in
place has no metadata of its own; and none of them waits until those of other distributions are found.
"""

from __future__ import annotations

GROUP = "anomaly_ov.verbs"
"""Entry points of this group add verbs; none replaces a verb of ours."""

# In the order of the help page.
VERBS = {
    "inspect": "anomaly_ov.cli.inspect:app",
    "ask": "anomaly_ov.cli.ask:app",
    "chat": "anomaly_ov.cli.chat:app",
    "serve": "anomaly_ov.cli.serve:app",
    "context": "anomaly_ov.cli.context:app",
    "models": "anomaly_ov.cli.models:app",
    "doctor": "anomaly_ov.cli.doctor:app",
    "synthesise": "anomaly_ov.cli.synthesise:app",
    "train": "anomaly_ov.cli.train:app",
    "eval": "anomaly_ov.cli.eval:app",
    "compare": "anomaly_ov.cli.compare:app",
    "calibrate": "anomaly_ov.cli.calibrate:app",
    "data": "anomaly_ov.cli.data:app",
    "baselines": "anomaly_ov.cli.baselines:app",
    "schema": "anomaly_ov.cli.schema:app",
}


def own_verbs() -> dict[str, str]:
    """Verb -> target, of our own packages that are installed."""
    return VERBS


def other_verbs() -> dict[str, str]:
    """Verb -> target, of other distributions."""
    from importlib.metadata import entry_points

    return {found.name: found.value for found in entry_points(group=GROUP) if found.name not in own_verbs()}


def target_of(verb: str) -> str | None:
    """Where ``verb`` is to be found; None if there is no such verb."""
    return own_verbs().get(verb) or other_verbs().get(verb)
