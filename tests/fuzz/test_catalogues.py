"""A shop's files may hold anything: products, or a `CatalogueError`; what is sold can be searched for and shown."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from env_wrappers.webshop.catalogue import build
from env_wrappers.webshop.official import HUMAN, NOUNS, CatalogueError, find_files, read_products
from env_wrappers.webshop.products import Product
from tests.fuzz.inputs import changed, files, fuzz, outcome

RECORD: dict[str, Any] = {
    "asin": "B000000001",
    "name": "Acme Tea",
    "full_description": "Good.",
    "small_description": ["Green"],
    "pricing": "$1,200.50 to $1,300",
    "customization_options": {"Size": [{"value": " A/B "}], "Color": None},
    "category": "grocery",
    "query": "Tea ",
    "product_category": "Food › Tea",
}
EXTRA = {"attributes": ["green tea"], "instruction": "Find me tea", "instruction_attributes": ["green tea"]}
WISH = {"instruction": "tea, please", "instruction_attributes": ["green tea"], "instruction_options": ["a | b"]}
FILES: dict[str, Any] = {
    "items_shuffle.json": [RECORD, RECORD | {"asin": "B000000002", "name": "Acme Coffee"}],
    "items_ins_v2.json": {"B000000001": EXTRA, "B000000002": EXTRA},
    HUMAN: {"B000000001": [WISH]},
    NOUNS: {"B000000001": ["tea"]},
}


@fuzz
@given(data=st.data(), broken=st.sampled_from(sorted(FILES)))
def test_a_catalogue_is_read_or_a_catalogue_error(tmp_path: Path, data: st.DataObject, broken: str) -> None:
    for name, content in FILES.items():
        wrong = name == broken
        (tmp_path / name).write_bytes(data.draw(files(content)) if wrong else json.dumps(content).encode())
    products, refusal = outcome(lambda: list(read_products(find_files(tmp_path))), CatalogueError)
    if refusal is None:
        use(products)
    else:
        assert str(tmp_path) in refusal


@fuzz
@given(data=st.data())
def test_a_record_with_a_wrong_field_costs_itself_only(tmp_path: Path, data: st.DataObject) -> None:
    good = copy.deepcopy(FILES["items_shuffle.json"][1])
    records = [data.draw(changed(RECORD)), good]
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(json.dumps(records if name == "items_shuffle.json" else content).encode())
    products = list(read_products(find_files(tmp_path)))
    assert "B000000002" in [product.asin for product in products]
    use(products)


def use(products: list[Product]) -> None:
    """What a shop does with its products."""
    for product in products:
        assert Product.from_bytes(product.to_bytes()) == product
    catalogue = build("the catalogue", products)
    assert all(catalogue.row_of(product.asin) is not None for product in products)
    for query in ("tea", "", "<r> x", "<a> green tea", "<c> grocery"):
        assert set(catalogue.search(query)) <= set(range(len(products)))
    for kind, pairs in catalogue.pairs.items():
        for number in range(len(pairs)):
            assert catalogue.goal(kind, number).instruction is not None
