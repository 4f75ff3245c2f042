"""``anomaly-ov eval reason``: measure what a model says about pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from anomaly_ov.cli import brain
from anomaly_ov.cli.console import Bar, note, print_error, stdout_console
from anomaly_ov.errors import UsageError

if TYPE_CHECKING:
    from anomaly_ov.remote.endpoint import EndpointConfig
    from anomaly_ov_lab.evaluation.text.answerers import Answerer
    from anomaly_ov_lab.evaluation.text.judge import Judge
    from anomaly_ov_lab.evaluation.text.questions import QuestionSet
    from anomaly_ov_lab.evaluation.text.result import ReasoningResult
    from anomaly_ov_lab.evaluation.text.similarity import Similarity

_TEXT = "How free text is scored"


def reason(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            help="Questions: test_data.json or visa_dr.json of VisA-D&R, mmad.json, a .jsonl of ours, or the folder of "
            "any labelled set (yes or no about each picture); repeatable.",
        ),
    ],
    model: brain.Model = "tiny",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for answers and figures; the same call goes on from it.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder that the lists' paths start from. Default: the list's own.")
    ] = None,
    phrasings: Annotated[
        int, typer.Option(min=1, help="In how many wordings 'is there a defect?' is asked; the first is VisA-D&R's.")
    ] = 1,
    question: Annotated[
        list[str] | None, typer.Option("--question", help="Ask this yes-or-no question instead; repeatable.")
    ] = None,
    parser: Annotated[
        Literal["strict", "official"],
        typer.Option(help="How answers are read. strict: the first word; official: 'yes' anywhere, as released."),
    ] = "strict",
    low_level: Annotated[
        int, typer.Option(min=0, help="How many first questions of a visa_dr.json conversation are low-level.")
    ] = 1,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B", help="Only these classes, by name, with commas between.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only N pictures of every class, of both labels in turn.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most pictures that are answered at once.")] = 8,
    reading: brain.Reading = None,
    max_tokens: brain.MaxTokens = None,
    device: brain.Device = "auto",
    dtype: brain.Dtype = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap intervals.")] = 0,
    no_sbert: Annotated[
        bool, typer.Option("--no-sbert", rich_help_panel=_TEXT, help="Without similarity of sentences.")
    ] = False,
    sbert: Annotated[
        Path | None,
        typer.Option(
            "--sbert", rich_help_panel=_TEXT, help="A sentence-transformers folder. Default: all-MiniLM-L6-v2 of PyPI."
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", metavar="URL", rich_help_panel=_TEXT, help="An OpenAI-compatible server that grades."),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="NAME", rich_help_panel=_TEXT, help="The judge's name there.")
    ] = None,
    judge_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", rich_help_panel=_TEXT, help="As --api-key-env, for the judge.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests to an endpoint or judge at once.")] = 4,
    endpoint: brain.Url = None,
    endpoint_model: brain.EndpointModel = None,
    api_key_env: brain.ApiKeyEnv = None,
    spend_cap: brain.SpendCap = None,
    price_in: brain.PriceIn = None,
    price_out: brain.PriceOut = None,
    timeout: brain.Timeout = None,
    requests_per_minute: brain.PerMinute = None,
    image_side: brain.ImageSide = None,
    no_logprobs: brain.NoLogprobs = False,
    no_temperature: brain.NoTemperature = False,
    summary: Annotated[
        Path | None, typer.Option("--summary", help="Write the figures of all sets into one JSON file.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
) -> None:
    """What a model answers about pictures: yes or no, free text, choices; with 95 % intervals, as means over classes.

    An endpoint or a judge is sent the question (and an endpoint the picture), nothing that a detector found. Exit
    codes: 0 done (what was left without an answer is named), 2 usage, 4 a model that does not speak or a missing
    package, 5 device, 6 an endpoint that refuses or answers nothing, 130 interrupted.
    """
    from anomaly_ov.files import write_atomic
    from anomaly_ov_lab.evaluation.text.table import markdown as as_markdown

    if summary is not None and not summary.parent.is_dir():  # said now rather than when all is measured
        raise UsageError(f"no folder {summary.parent} for --summary", hint="make it first")
    remote = brain.endpoint_config(
        endpoint, reading, model=endpoint_model, api_key_env=api_key_env, spend_cap=spend_cap, price_in=price_in,
        price_out=price_out, timeout_s=timeout, requests_per_minute=requests_per_minute, image_side=image_side,
        logprobs=no_logprobs, temperature=no_temperature, max_tokens=max_tokens,
    )  # fmt: skip
    grader = _judge(judge, judge_model, judge_key_env, timeout, parallel)
    sets = _questions(data, images, phrasings, question, low_level, classes, limit)
    if out is not None and len({one.name for one in sets}) < len(sets):
        names = ", ".join(one.name for one in sets)
        raise UsageError(f"two sets of one name: {names}", hint="measure them in separate calls")
    free_text = any(one.has("low", "complex") for one in sets)
    encoder = _similarity(sbert, no_sbert) if free_text else None
    answerer = _answerer(remote, parallel, model, device, dtype, batch_size, reading, max_tokens)
    results = []
    for one in sets:
        folder = None if out is None else out / one.name
        try:
            results.append(_run(answerer, one, folder, parser, encoder, grader, seed))
        except KeyboardInterrupt:
            kept = "the same command goes on from there" if folder else "with --out DIR a run can be continued"
            print_error(
                f"interrupted while asking {one.name}" + (f", answers kept in {folder}" if folder else ""), kept
            )
            raise typer.Exit(130) from None
        if folder is not None:
            note(f"answers and figures in {folder}")
    if summary is not None:
        write_atomic(summary, (json.dumps([result.to_json() for result in results], indent=1) + "\n").encode())
    if markdown:
        print(as_markdown(results), end="")
    else:
        _print(results)


def _questions(
    data: list[Path], images: Path | None, phrasings: int, asked: list[str] | None, low_level: int,
    classes: str | None, limit: int | None,
) -> list[QuestionSet]:  # fmt: skip
    from anomaly_ov_lab.evaluation.text import questions
    from anomaly_ov_lab.evaluation.text.layouts import load_questions

    if asked and phrasings > 1:
        raise UsageError("--question and --phrasings do not go together", hint="leave out one of them")
    texts = tuple(dict.fromkeys(map(brain.question_of, asked))) if asked else questions.phrasings(phrasings)
    found = []
    for path in data:
        one = load_questions(path, detect=texts, images=images, low_level=low_level)
        if classes is not None:
            one = one.of_categories([name.strip() for name in classes.split(",") if name.strip()])
        found.append(one if limit is None else one.first(limit))
    return found


def _judge(
    url: str | None, model: str | None, key_env: str | None, timeout: float | None, parallel: int
) -> Judge | None:
    if url is None:
        if model is not None or key_env is not None:
            raise UsageError("--judge-model and --judge-key-env are for a judge", hint="add --judge URL")
        return None
    if model is None:
        raise UsageError("--judge needs --judge-model", hint="give the judge's name as the endpoint knows it")
    from anomaly_ov.remote.endpoint import Endpoint
    from anomaly_ov_lab.evaluation.text.judge import Judge

    with brain.in_options():
        # logprobs=True is the option --no-logprobs: a grade is read from its text.
        config = brain.endpoint_config(url, None, model=model, api_key_env=key_env, timeout_s=timeout, logprobs=True)
        return None if config is None else Judge(Endpoint(config), parallel=parallel)


def _similarity(folder: Path | None, unwanted: bool) -> Similarity | None:
    if unwanted:
        if folder is not None:
            raise UsageError("--sbert and --no-sbert do not go together", hint="leave out one of them")
        return None
    from anomaly_ov_lab.evaluation.text.similarity import Similarity

    return Similarity(folder)


def _answerer(
    remote: EndpointConfig | None, parallel: int, model: str, device: str, dtype: str, batch_size: int,
    reading: str | None, max_tokens: int | None,
) -> Answerer:  # fmt: skip
    from anomaly_ov_lab.evaluation.text.answerers import EndpointAnswerer, InspectorAnswerer

    if remote is not None:
        from anomaly_ov.remote.endpoint import Endpoint

        with brain.in_options():
            return EndpointAnswerer(Endpoint(remote), parallel=parallel)
    from anomaly_ov.inspector import load

    given: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
    inspector = load(model, device=device, dtype=dtype)
    return InspectorAnswerer(inspector, batch_size=batch_size, reading=reading, **given)


def _run(
    answerer: Answerer, questions: QuestionSet, folder: Path | None, parser: Literal["strict", "official"],
    similarity: Similarity | None, judge: Judge | None, seed: int,
) -> ReasoningResult:  # fmt: skip
    from anomaly_ov_lab.evaluation.text.run import evaluate_reasoning

    bars: dict[str, Bar] = {}

    def progress(what: str, done: int, total: int) -> None:
        bars.setdefault(what, Bar(total, f"{what} ({questions.name})")).at(done, total)
        if done == total:
            bars[what].__exit__(None, None, None)

    try:
        with brain.in_options():
            return evaluate_reasoning(
                answerer, questions, folder, parser=parser, similarity=similarity, judge=judge, progress=progress,
                seed=seed,
            )  # fmt: skip
    finally:
        for bar in bars.values():
            bar.__exit__(None, None, None)


def _print(results: list[ReasoningResult]) -> None:
    from anomaly_ov_lab.evaluation.report import terminal_table
    from anomaly_ov_lab.evaluation.text.table import remarks, tables

    console = stdout_console()
    for title, columns, rows in tables(results):
        console.print(terminal_table(title, columns, rows, names=2))
    for result in results:
        for line in remarks(result):
            console.print(line, style="dim", markup=False, highlight=False)
