"""LLaVA JSON: both layouts, streamed; each bad sample is named and the rest goes on; broken files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anomaly_ov.errors import DataError, UsageError
from anomaly_ov_lab.instruct import Turn, llava_json
from anomaly_ov_lab.instruct.llava_json import Record, Skipped, read, record, write


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    return folder


def sample(**changes: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": "<image>\nIs it fine?"}, {"from": "gpt", "value": "Yes."}]
    return {"id": "s", "image": "a.png", "conversations": said, **changes}


def said(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": text} for role, text in pairs]


def save(path: Path, samples: list[Any]) -> Path:
    lines = [json.dumps(value) for value in samples]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else "[" + " ,\n".join(lines) + "]\n")
    return path


@pytest.mark.parametrize("name", ["c.json", "c.jsonl"])
def test_written_and_read_back(tmp_path: Path, images: Path, name: str) -> None:
    turns = (Turn("Is it ‘fine’?", "Yes.", "detect"), Turn("Why?", "Luck.", "cause"))
    records = [
        record("one", [images / "a.png"], turns),
        record("two", [images / "a.png", images / "sub" / "b.png"], turns[:1]),
        record("text", [], turns[1:]),
    ]
    write(records, tmp_path / name, images)
    assert list(read(tmp_path / name, images)) == records
    assert records[1].turns == (("human", "<image>\n<image>\nIs it ‘fine’?"), ("gpt", "Yes."))
    lines = (tmp_path / name).read_text(encoding="utf-8").strip("[]\n").splitlines()
    stored = [json.loads(line.rstrip(",")) for line in lines]
    assert [value.get("image") for value in stored] == ["a.png", ["a.png", "sub/b.png"], None]
    assert "image" not in stored[2]


BAD: dict[str, tuple[Any, str]] = {
    "no conversations": ({"id": "s", "image": "a.png"}, "no conversations"),
    "empty conversations": (sample(conversations=[]), "no conversations"),
    "not an object": ([1, 2], "not an object"),
    "a number": (12, "not an object"),
    "a string": ("[", "not an object"),
    "turn of nothing": (sample(conversations=[None, None]), "turn without from or value: turn 0"),
    "no value": (sample(conversations=[{"from": "human"}]), "turn without from or value: turn 0"),
    "human twice": (sample(conversations=said(("human", "<image>a"), ("human", "b"))), "roles out of order: turn 1"),
    "unanswered": (sample(conversations=said(("human", "<image> a"))), "no answer to the last question"),
    "empty question": (sample(conversations=said(("human", "<image>\n "), ("gpt", "x"))), "empty question: turn 0"),
    "empty answer": (sample(conversations=said(("human", "<image>a"), ("gpt", " "))), "empty answer: turn 1"),
    "half a pair": (sample(conversations=said(("human", "<image>\ud800"), ("gpt", "x"))), "text holds half"),
    "marker too few": (sample(conversations=said(("human", "a"), ("gpt", "x"))), "markers do not match images: 0 m"),
    "marker too many": (sample(image=None), "markers do not match images: 1 markers, 0 images"),
    "marker in answer": (sample(conversations=said(("human", "a"), ("gpt", "<image>"), )), "empty answer"),
    "marker in the midst of an answer": (
        sample(conversations=said(("human", "a"), ("gpt", "see <image>"))), "image marker in an answer"),
    "missing image": (sample(image="c.png"), "image missing: c.png"),
    "a folder": (sample(image="sub"), "image missing: sub"),
    "outside": (sample(image="../secret.png"), "image outside the folder: ../secret.png"),
    "absolute": (sample(image="/etc/hostname"), "image outside the folder: /etc/hostname"),
    "a number for a path": (sample(image=[7]), "image is not a path: 7"),
    "an empty path": (sample(image=""), "image is not a path"),
    "a zero byte": (sample(image="a\0.png"), "image is not a path"),
    "half a pair in a path": (sample(image="\udc80.png"), "image is not a path"),
    "an endless name": (sample(image="x" * 5000), "image is not a path"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["c.json", "c.jsonl"])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_sample_is_named_and_the_next_is_read(tmp_path: Path, images: Path, case: str, name: str) -> None:
    value, reason = BAD[case]
    good, bad, after = read(save(tmp_path / name, [sample(id="first"), value, sample(id="last")]), images)
    assert isinstance(good, Record)
    assert isinstance(after, Record)
    assert after.id == "last"
    assert isinstance(bad, Skipped)
    assert bad.index == 1
    assert bad.reason.startswith(reason)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, images: Path) -> None:
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    (bad,) = read(save(tmp_path / "c.json", [sample(image="link.png")]), images)
    assert isinstance(bad, Skipped)
    assert bad.reason.startswith("image outside")


def test_a_broken_or_overlong_line_is_skipped(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llava_json, "MAX_SAMPLE_BYTES", 1000)
    good = json.dumps(sample())
    lines = [good, "{", "\xff", "x" * 200_000, "", "[" * 900, json.dumps(sample(id="last"))]
    (tmp_path / "c.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    found = list(read(tmp_path / "c.jsonl", images))
    kinds = [item.reason.split(":")[0] if isinstance(item, Skipped) else item.id for item in found]
    assert kinds == ["s", "not JSON", "not JSON", "line too long", "not JSON", "last"]


def test_a_long_array_is_read_in_pieces(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llava_json, "_CHUNK", 7)
    text = 'é[]{}"\\,' * 50
    many = [sample(id=str(i), conversations=said(("human", f"<image>{text}"), ("gpt", "x"))) for i in range(20)]
    path = tmp_path / "c.json"
    path.write_text("\ufeff \n" + json.dumps([*many, *[123456789] * 9], ensure_ascii=False), encoding="utf-8")
    found = list(read(path, images))
    assert [item.id for item in found] == [*map(str, range(20)), *[""] * 9]
    assert isinstance(found[3], Record)
    assert found[3].turns[0][1] == f"<image>{text}"
    assert isinstance(found[-1], Skipped)
    assert found[-1].index == 28


def test_a_number_cut_by_the_end_of_a_piece_is_one_value(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llava_json, "_CHUNK", 7)
    path = save(tmp_path / "c.json", [123456789, 123456789])
    assert [type(item) for item in read(path, images)] == [Skipped, Skipped]


def test_reading_begins_before_the_end_of_the_file_is_seen(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("[" + ",".join([json.dumps(sample())] * 1000) + ", broken")
    stream = read(path, images)
    assert isinstance(next(stream), Record)
    with pytest.raises(DataError, match="sample 1000"):
        list(stream)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 1}', "ends too early"),
        ('[{"id": 1', "sample 0"),
        ("[", "sample 0"),
        ('[{"id": 1} {"id": 2}]', "'{' stands where ']'"),
        ('[{"id": 1},]', "sample 1"),
        ("[] []", "goes on behind"),
        ('["\xff"]', "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_array_is_refused(tmp_path: Path, images: Path, text: str, message: str) -> None:
    (tmp_path / "c.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        list(read(tmp_path / "c.json", images))


def test_a_sample_that_is_too_large_stops_an_array(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llava_json, "MAX_SAMPLE_BYTES", 100_000)
    (tmp_path / "c.json").write_text('[{"id": "' + "x" * 1_000_000 + '"}]')
    with pytest.raises(DataError, match="larger than 100000 bytes"):
        list(read(tmp_path / "c.json", images))


@pytest.mark.parametrize("text", ["", "\n \n", "[]", " [ ] \n"])
def test_a_file_of_nothing_holds_nothing(tmp_path: Path, images: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    assert list(read(tmp_path / "c.json", images)) == []


def test_an_absent_file_is_named(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json"):
        list(read(tmp_path / "none.json", images))


def test_writing_is_whole_or_not_at_all(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("old")
    outside = Record("x", (tmp_path / "secret.png",), (("human", "<image>a"), ("gpt", "b")))
    with pytest.raises(DataError, match="outside"):
        write([outside], path, images)
    assert path.read_text() == "old"
    with pytest.raises(UsageError, match="cannot write"):
        write([], tmp_path / "absent" / "c.json", images)


def test_as_the_released_code_it_takes_samples_without_id_and_drops_what_is_said_before_the_question(
    tmp_path: Path, images: Path
) -> None:
    unnamed = {key: value for key, value in sample().items() if key != "id"}
    early = sample(conversations=said(("gpt", "Hello."), ("human", "<image>\nIs it fine?"), ("gpt", "Yes.")))
    first, second = read(save(tmp_path / "a.jsonl", [unnamed, early]), images)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert first.id == "#0"
    assert second.turns == (("human", "<image>\nIs it fine?"), ("gpt", "Yes."))
    (silent,) = read(save(tmp_path / "b.jsonl", [sample(conversations=said(("gpt", "Hello.")))]), images)
    assert isinstance(silent, Skipped)
    assert silent.reason == "no question"
