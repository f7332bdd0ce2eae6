"""What is written is true: generated pages are fresh and links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tune_tasks import schema

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("dags/*.md"), *ROOT.glob("flows/*.md")])


def dead_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [t for t in targets if t and not re.match(r"[a-z]+:", t) and not (page.parent / t).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("[here](nowhere.md)")
    assert dead_links(tmp_path / "page.md") == ["nowhere.md"]


def test_the_spec_reference_is_what_the_models_say() -> None:
    assert (ROOT / "docs" / "spec.md").read_text(encoding="utf-8") == schema.markdown(), "run `make docs`"


def test_the_published_schema_is_what_the_models_say() -> None:
    published = json.loads((ROOT / "docs" / "spec.schema.json").read_text(encoding="utf-8"))
    assert published == json.loads(json.dumps(schema.schema(), default=str)), "run `make docs`"


def test_the_published_schema_of_model_json_is_what_the_model_says() -> None:
    published = json.loads((ROOT / "docs" / "model.schema.json").read_text(encoding="utf-8"))
    assert published == json.loads(json.dumps(schema.model_schema())), "run `make docs`"


def missing_tests(text: str) -> list[str]:
    """The tests and files that a page names and that are not there."""
    missing = []
    for name in re.findall(r"`((?:tests|tune_tasks|benchmarks)/[\w/]+\.py(?:::\w+)?)`", text):
        path, _, test = name.partition("::")
        file = ROOT / path
        if not file.exists() or (test and f"def {test}(" not in file.read_text(encoding="utf-8")):
            missing.append(name)
    return missing


def test_every_fault_on_the_reliability_page_is_shown_by_tests_that_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 32
    assert all("::" in row for row in rows)
    assert missing_tests(text) == []


def test_a_test_that_is_not_there_is_noticed() -> None:
    named = "`tests/test_docs.py::test_nothing`, `tests/test_nothing.py`, `tests/test_docs.py`"
    assert missing_tests(named) == ["tests/test_docs.py::test_nothing", "tests/test_nothing.py"]
