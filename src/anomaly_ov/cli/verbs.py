"""Which module holds which verb of ``anomaly-ov``: our own by tables, those of other distributions by entry points.

A target is "module:attribute" and names a Typer application. No target is imported here: ``main`` does that when
its verb is used, or when ``--help`` lists it. Our own verbs are no entry points, because a checkout that is run in
place has no metadata of its own; and none of them waits until those of other distributions are found.
"""

from __future__ import annotations

from importlib import import_module

GROUP = "anomaly_ov.verbs"
"""Entry points of this group add verbs; none replaces a verb of ours."""

PACKAGES = ("anomaly_ov_server", "anomaly_ov_lab")
"""Our packages that have a table ``VERBS`` of their own. Nothing here imports more of them than that table."""

# In the order of the help page.
VERBS = {
    "inspect": "anomaly_ov.cli.inspect:app",
    "ask": "anomaly_ov.cli.ask:app",
    "chat": "anomaly_ov.cli.chat:app",
    "context": "anomaly_ov.cli.context:app",
    "models": "anomaly_ov.cli.models:app",
    "doctor": "anomaly_ov.cli.doctor:app",
    "calibrate": "anomaly_ov.cli.calibrate:app",
    "schema": "anomaly_ov.cli.schema:app",
}


def own_verbs() -> dict[str, str]:
    """Verb -> target, of our own packages."""
    found = dict(VERBS)
    for package in PACKAGES:
        found |= import_module(package).VERBS
    return found


def other_verbs() -> dict[str, str]:
    """Verb -> target, of other distributions."""
    from importlib.metadata import entry_points

    ours = own_verbs()
    return {found.name: found.value for found in entry_points(group=GROUP) if found.name not in ours}


def target_of(verb: str) -> str | None:
    """Where ``verb`` is to be found; None if there is no such verb."""
    return own_verbs().get(verb) or other_verbs().get(verb)
