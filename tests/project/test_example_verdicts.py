"""What a newcomer sees first is right: the bundled examples, judged by the shipped model in every way."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_ov.inspector import Inspector, load

pytestmark = pytest.mark.slow

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.jpg"))
GOOD = [path for path in EXAMPLES if path.stem.endswith("_good")]


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return load("tiny", device="cpu")


def judged(inspector: Inspector, context: object) -> dict[str, bool]:
    found = inspector.stream(EXAMPLES, context=context)  # type: ignore[arg-type]
    return {path.stem: bool(one.anomalous) for path, one in zip(EXAMPLES, found, strict=True)}


RIGHT = {path.stem: path not in GOOD for path in EXAMPLES}


def test_each_by_itself(inspector: Inspector) -> None:
    assert judged(inspector, None) == RIGHT


def test_by_the_default(inspector: Inspector) -> None:
    assert judged(inspector, inspector.auto_context(EXAMPLES)[0]) == RIGHT


def test_with_the_good_ones_of_all_products_as_references(inspector: Inspector) -> None:
    assert judged(inspector, inspector.context(GOOD)) == RIGHT


def test_with_the_good_one_of_its_product_as_reference(inspector: Inspector) -> None:
    for good in GOOD:
        product = good.stem.removesuffix("good")
        context = inspector.context([good])
        for path in EXAMPLES:
            if path.stem.startswith(product):
                assert inspector.inspect(path, context).anomalous == RIGHT[path.stem], path.stem
