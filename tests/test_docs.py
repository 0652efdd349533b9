"""The hand-written pages: links lead somewhere, examples work, no field of a study is missing."""

import re
from pathlib import Path

import pytest

from bench.config.base import Part
from bench.config.row import RowConfig
from bench.study.config import Claim, Setting, Size, StudyComparison, StudyConfig, StudyRow
from bench.study.read_study import load_study, suites_of
from tests.test_structure import ROOMS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "routers/README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
STUDY_PARTS = (StudyConfig, Setting, StudyRow, StudyComparison, Claim, Size)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if heading:
            assert heading in headings(file), f"{page.name} links to {target}"


def headings(page: Path) -> set[str]:
    """Anchors that GitHub makes of the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("part", STUDY_PARTS, ids=lambda part: part.__name__)
def test_every_field_of_a_study_is_described(part: type[Part]) -> None:
    text = (ROOT / "docs/studies.md").read_text("utf-8")
    own = part.model_fields.keys() - (RowConfig.model_fields.keys() if part is StudyRow else set())
    assert [name for name in own if f"`{name}`" not in text] == []


def test_the_example_of_a_study_can_be_run(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs/studies.md").read_text("utf-8"), re.S
    )
    (tmp_path / "my-study.yaml").write_text(example, encoding="utf-8")
    study = load_study(str(tmp_path / "my-study.yaml"))
    (suite,) = suites_of(study, study.size("small")).values()
    assert [row.name for row in suite.rows] == [row.name for row in study.rows]


def test_the_index_lists_every_page() -> None:
    text = (ROOT / "docs/README.md").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in text


def test_folders_stand_in_the_order_of_imports() -> None:
    text = (ROOT / "docs/folders.md").read_text("utf-8")
    table = re.findall(r"^\| `([a-z/]+)/`", text, re.MULTILINE)
    folders = [room for room in ROOMS if (ROOT / room.replace(".", "/")).is_dir()]
    assert [name.replace("/", ".") for name in table] == folders


def test_questions_lead_to_files() -> None:
    text = (ROOT / "docs/folders.md").read_text("utf-8")
    files = re.findall(r"`((?:bench|routers)/[a-z_/]+\.py)`", text)
    assert files and all((ROOT / name).is_file() for name in files)
