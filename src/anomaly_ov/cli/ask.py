"""``anomaly-ov ask``: one question about many pictures, or about several views of one thing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from anomaly_ov.cli import brain, contexts, spoken
from anomaly_ov.cli.console import Bar, note, print_error, print_json_line
from anomaly_ov.errors import AnomalyOVError, EndpointError, EndpointRefused, ImageError, UsageError
from anomaly_ov.images.messages import counted, printable
from anomaly_ov.words.agreement import checked
from anomaly_ov.words.from_record import answer

if TYPE_CHECKING:
    from anomaly_ov.images.sources import Source
    from anomaly_ov.inspector import Inspector
    from anomaly_ov.records import Finding
    from anomaly_ov.remote.endpoint import Endpoint, EndpointConfig

app = typer.Typer(add_completion=False)
EXAMPLE = 'for example: anomaly-ov ask scans/ "Is anything wrong here?"'
MAY_BE_WRONG = "answers may be wrong: check what matters"


@dataclass
class Tally:
    """What a run did so far; decides the exit code."""

    done: int = 0
    answered: int = 0
    unreadable: int = 0
    started: float = field(default_factory=time.perf_counter)

    def add(self, finding: Finding) -> None:
        """Counts one picture."""
        self.done += 1
        self.answered += finding.answer is not None
        self.unreadable += finding.score is None

    @property
    def exit_code(self) -> int:
        """6 a picture was read but not answered, else 3 some pictures unreadable, else 0."""
        if self.done > self.answered + self.unreadable:
            return EndpointError.exit_code
        return ImageError.exit_code if self.unreadable else 0


class AskCommand(TyperCommand):
    """Says which of the two is missing where one word stands alone: the parser takes it for the question."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        if isinstance(word := given.get("question"), str) and not given.get("paths") and not given.get("help"):
            if os.path.lexists(word) or _named_like_a_picture(word):
                raise UsageError("the question is missing", hint=EXAMPLE)
            raise UsageError("the pictures are missing", hint=EXAMPLE)
        return super().parse_args(ctx, args)


@app.command(cls=AskCommand)
def ask(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders or globs.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask, in quotes, after all paths.")],
    model: brain.Model = "tiny",
    device: brain.Device = "auto",
    dtype: brain.Dtype = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Most pictures that are looked at and answered at once.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record per picture and line on stdout.")] = False,
    views: Annotated[
        bool, typer.Option("--views", help="All pictures show one thing: they get one answer together.")
    ] = False,
    reading: brain.Reading = None,
    max_tokens: brain.MaxTokens = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            *contexts.OPTION,
            metavar="auto|none|folder|GOOD|FILE.ctx",
            help=f"What says what is normal, as in 'inspect'. Default: {contexts.DEFAULT_CONTEXT}. {contexts.OLD_NAME}",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pictures.")] = None,
    endpoint: brain.Url = None,
    endpoint_model: brain.EndpointModel = None,
    api_key_env: brain.ApiKeyEnv = None,
    spend_cap: brain.SpendCap = None,
    price_in: brain.PriceIn = None,
    price_out: brain.PriceOut = None,
    timeout: brain.Timeout = None,
    requests_per_minute: brain.PerMinute = None,
    crop: brain.Crop = False,
    image_side: brain.ImageSide = None,
    no_logprobs: brain.NoLogprobs = False,
    no_temperature: brain.NoTemperature = False,
) -> None:
    """Ask one question about each picture; a question that takes yes or no is also answered with P(yes).

    Without a language side and an endpoint, answers are taken from the record: whether, where, how many, how large, how
    sure, why, compared with what.

    Exit codes: 0 done, 2 usage, 3 some pictures unreadable, 4 weights missing, 5 device or memory, 6 the endpoint left
    a picture unanswered (comes before 3), 130 interrupted.
    """
    question = _checked(paths, question)
    remote = brain.endpoint_config(
        endpoint,
        reading,
        model=endpoint_model,
        api_key_env=api_key_env,
        spend_cap=spend_cap,
        price_in=price_in,
        price_out=price_out,
        timeout_s=timeout,
        requests_per_minute=requests_per_minute,
        crop_top_region=crop,
        image_side=image_side,
        logprobs=no_logprobs,
        temperature=no_temperature,
        max_tokens=max_tokens,
    )
    if views and (remote is not None or context):
        other = "--endpoint" if remote is not None else "--references"
        raise UsageError(f"--views and {other} do not go together", hint="leave out one of them")
    from anomaly_ov.images.sources import expand
    from anomaly_ov.inspector import load

    wanted = contexts.wanted(context or [contexts.DEFAULT_CONTEXT])
    given = expand(paths)
    sources = given[:limit]
    if not views:
        contexts.require_enough(wanted, given)
    asked = _endpoint(remote)
    inspector = load(model, device=device, dtype=dtype)
    speaks = asked is None and brain.speaks(inspector, reading)
    if asked is None and not speaks:
        note(brain.FROM_RECORD)
    if views:
        _ask_views(inspector, sources, question, reading, max_tokens, as_json=as_json)
        return
    chosen = contexts.of_run(inspector, wanted, given, batch_size, None, [], quiet=as_json)
    results = inspector.stream_with_previews(sources, batch_size, chosen.context, previews=False, talk=speaks)
    if asked is not None:
        findings = _answered_remotely(asked, zip(sources, results, strict=True), question)
    elif speaks:
        pairs = brain.answered(inspector, results, question, batch_size, reading=reading, max_tokens=max_tokens)
        findings = (finding for finding, _ in pairs)
    else:
        findings = (finding for finding, _ in brain.told(results, partial(answer, question=question)))
    _run(findings, len(sources), inspector, asked, as_json=as_json)


def _checked(paths: list[str], question: str) -> str:
    """The question. Raises ``UsageError`` where it, or a picture, seems to be missing."""
    if os.path.lexists(question) or (" " not in question and _named_like_a_picture(question)):
        raise UsageError(f"the last argument must be the question, {printable(question)} is a path", hint=EXAMPLE)
    asked = brain.question_of(question)
    others = [path for path in paths if not _named_like_a_picture(path)]
    contexts.require_existing(others, "the pictures", f"put the question in quotes; {EXAMPLE}")
    return asked


def _named_like_a_picture(path: str) -> bool:
    """A picture that is not there is a record with its error; any other word is a mistake in the command."""
    from anomaly_ov.images.sources import SUFFIXES

    return os.path.splitext(path)[1].lower() in SUFFIXES


def _endpoint(config: EndpointConfig | None) -> Endpoint | None:
    if config is None:
        return None
    from anomaly_ov.remote.endpoint import Endpoint

    with brain.in_options():
        return Endpoint(config)


def _answered_remotely(
    endpoint: Endpoint, results: Iterator[tuple[Source, tuple[Finding, Any]]], question: str
) -> Iterator[Finding]:
    """Findings with their answers, or with the error that one picture's question met."""
    from anomaly_ov.records import ErrorInfo

    for source, (finding, _) in results:
        light = replace(finding, significance_map=None)
        if finding.error is not None:
            yield light
            continue
        try:
            with brain.in_options():
                said = endpoint.ask(finding, source.read(), question)
                yield replace(light, answer=checked(said, finding, question))
        except EndpointRefused:
            raise
        except (EndpointError, ImageError) as error:
            yield replace(light, error=ErrorInfo(type(error).__name__, error.message, error.hint))


def _run(
    findings: Iterator[Finding], total: int, inspector: Inspector, endpoint: Endpoint | None, *, as_json: bool
) -> None:
    """Prints each answer as it comes, then what was done; leaves with the run's exit code."""
    tally = Tally()
    try:
        with Bar(total, "asking", quiet=as_json and sys.stdout.isatty()) as bar:
            for finding in findings:
                tally.add(finding)
                if finding.error is not None:
                    print_error(finding.error.message, finding.error.hint)
                _print(finding, as_json=as_json)
                bar.advance()
    except KeyboardInterrupt:
        print_error(f"interrupted: {tally.done} of {total} pictures done", "")
        raise typer.Exit(130) from None
    except AnomalyOVError:
        if tally.done:
            note(f"stopped: {tally.done} of {total} pictures done")
        raise
    _say_done(tally, inspector, endpoint)
    raise typer.Exit(tally.exit_code)


def _print(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        print_json_line(replace(finding, significance_map=None).to_json())
    elif finding.answer is not None:
        print(f"{spoken.headline(finding)}\n{spoken.paragraph(finding.answer)}", flush=True)


def _ask_views(
    inspector: Inspector,
    sources: list[Source],
    question: str,
    reading: str | None,
    max_tokens: int | None,
    *,
    as_json: bool,
) -> None:
    """One answer for all; in JSON every view's record holds it."""
    findings = inspector.inspect_views(sources)
    speaker: brain.Speaker = brain.FromRecord(findings)
    if inspector.speaks:
        speaker = brain.BuiltIn(inspector, findings, reading, max_tokens)
    together = speaker.ask(question, lambda text: None)
    if as_json:
        for finding in findings:
            _print(replace(finding, answer=together), as_json=True)
        return
    for finding in findings:
        print(spoken.headline(finding))
    chance = "" if together.p_yes is None else f"; P(yes) {together.p_yes:.2f}"
    print(f"all {len(findings)} views together{chance}\n{spoken.paragraph(together)}", flush=True)
    if inspector.speaks:
        note(MAY_BE_WRONG)


def _say_done(tally: Tally, inspector: Inspector, endpoint: Endpoint | None) -> None:
    seconds = time.perf_counter() - tally.started
    counts = f"{counted(tally.done, 'picture')}: {tally.answered} answered"
    if tally.unreadable:
        counts += f", {tally.unreadable} unreadable"
    if left := tally.done - tally.answered - tally.unreadable:
        counts += f", {left} without an answer"
    info = inspector.info
    by = f"model {info.name}, {info.device} {info.dtype}"
    if endpoint is not None:
        by = f"{endpoint.config.model} at {endpoint.config.base_url}"
        by += f", {endpoint.spent:.4g} spent" if endpoint.config.price_in or endpoint.config.price_out else ""
    note(f"{counts}; {seconds:.1f} s ({tally.done / seconds:.1f}/s), {by}")
    if tally.answered and (endpoint is not None or inspector.speaks):
        note(MAY_BE_WRONG)
