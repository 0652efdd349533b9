"""The hand-written pages: links lead somewhere, examples work, figures follow from the records."""

import math
import re
import shlex
from pathlib import Path
from statistics import fmean

import pytest

from bench.board import Board, build_board, measures
from bench.board.model import Row, comparison
from bench.cli import build_parser
from bench.commands.options import overrides
from bench.config.base import Part
from bench.config.read_suite import load_suite
from bench.config.row import RowConfig
from bench.stats import judge_board
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


def commands(page: Path) -> list[list[str]]:
    """Words after `-m bench` of each indented command line of a page, comments left out."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ {4}(?:python|torchrun .*?) -m bench (.+)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_can_be_parsed(page: Path) -> None:
    for words in commands(page):
        arguments = build_parser(words).parse_args(words)
        # The suite must have the fields that `--set` names.
        if getattr(arguments, "set", None):
            load_suite(arguments.suite, overrides(arguments), arguments.set)


def test_commands_for_a_gpu_have_the_steps_that_the_page_states() -> None:
    """300 steps, and the tokens of a step as the suites have them."""
    text = (ROOT / "docs/commands.md").read_text("utf-8")
    runs = [words for words in commands(ROOT / "docs/commands.md") if "cuda" in words]
    stated = dict(re.findall(r"^`([\w-]+)` takes ([\d,]+) tokens a step", text, re.MULTILINE))
    found: dict[str, list[float]] = {}
    for words in runs:
        arguments = build_parser(words).parse_args(words)
        suite = load_suite(arguments.suite, overrides(arguments), arguments.set)
        step = suite.train.batch_size * suite.seq_len
        assert stated[suite.name] == f"{step:,}"
        steps = found.setdefault(suite.name, [])
        if words[0] == "run":
            steps.append(suite.train.reference_tokens / step)
        if suite.pretrain is not None:
            steps.append(suite.pretrain.tokens / suite.pretrain.batch_size / suite.seq_len)
    assert found == {"rung-4": [300], "paper": [300, 300, 300]}


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


def test_findings_quote_every_study_as_its_page_does() -> None:
    text = (ROOT / "docs/findings.md").read_text("utf-8")
    quoted = re.findall(r"^\| \[([a-z0-9-]+)\] \| (.*) \|$", text, re.MULTILINE)
    studies = ROOT / "results/studies"
    assert {name for name, _ in quoted} == {
        page.parent.name for page in studies.glob("*/README.md")
    }
    for name, cells in quoted:
        seeds, row, other, found, _, verdict = cells.split(" | ")
        page = (studies / name / "README.md").read_text("utf-8")
        assert f"At size small, {seeds} seeds" in page
        shown = [line for line in page.splitlines() if row in line and other in line]
        assert any(found in line and verdict in line for line in shown), f"{name}: {found}"


@pytest.fixture(scope="module")
def quick() -> Board:
    """The committed board."""
    (board,) = build_board(ROOT / "results", "quick")
    return board


def readme() -> str:
    """The README on one line, with the signs of Python."""
    return " ".join((ROOT / "README.md").read_text("utf-8").split()).replace("−", "-")


def bits(board: Board, row: str, other: str) -> float:
    """Mean over seeds of row minus other row, from the losses alone."""
    losses = {each.name: each.losses for each in board.ranked}
    return fmean(losses[row][seed] - losses[other][seed] for seed in losses[row]) / math.log(2)


def test_the_readme_compares_hash_and_memory_as_the_records_do(quick: Board) -> None:
    text = readme()
    learned = {row for row, _ in quick.judgement.outcomes} - {"hash", "surprisal"}
    lead = min(bits(quick, row, "dense_memory") for row in learned)
    assert f"beats every learned router**, by {lead:.3f} or more" in text
    for row in ("hash", "dense_memory"):
        gain = -bits(quick, row, "dense_matched")
        assert re.search(rf"`{row}` is {gain:.3f} better", text)

    plan = quick.judgement.plan
    assert plan is not None
    verdicts = judge_board({row.name: row.losses for row in quick.ranked}, plan)
    for row in learned:
        # A pair of the secondary family is in the order of the names.
        first, second = sorted((row, "dense_memory"))
        pair = verdicts.find(first, second, "secondary")
        assert pair is not None and pair.winner == "dense_memory"
    found = verdicts.find("dense_memory", "hash", "secondary")
    assert found is not None
    low, high = (-end / math.log(2) for end in reversed(found.interval))
    shown = f"{bits(quick, 'hash', 'dense_memory'):.3f} [{low:+.3f}, {high:+.3f}]"
    assert f"`hash` minus `dense_memory` is {shown}: *{found.verdict}*" in text


def test_the_readme_counts_wins_as_the_records_do(quick: Board) -> None:
    text, outcomes = readme(), quick.judgement.outcomes
    to_dense = {row for row, control in outcomes if control == "dense_matched"} - {"hash"}
    to_random = [pair for pair in outcomes if pair[1] != "dense_matched"]
    won = {row for row in to_dense if outcomes[row, "dense_matched"].winner == row}
    assert won == {"top1_moe", "top2_moe", "adaptive_moe"}
    gains = sorted(-bits(quick, row, "dense_matched") for row in won)
    assert f"are {gains[0]:.3f} to {gains[-1]:.3f} better" in text

    experts = {"smear", "partially_supervised@experts"}
    lost = to_dense - won
    assert all(outcomes[row, "dense_matched"].winner == "dense_matched" for row in lost)
    assert f"`smear` is {bits(quick, 'smear', 'dense_matched'):.3f} worse" in text
    last = bits(quick, "partially_supervised@experts", "dense_matched")
    assert f"`partially_supervised@experts` {last:.3f}." in text
    losses = sorted(bits(quick, row, "dense_matched") for row in lost - experts)
    assert f"are {losses[0]:.3f} to {losses[-1]:.3f} worse" in text

    plan = quick.judgement.plan
    assert plan is not None
    first = {row.name: {seed: row.losses[seed] for seed in range(3)} for row in quick.ranked}
    early = [judge_board(first, plan).find(*pair) for pair in outcomes]
    decided = sum(found is not None and found.winner is not None for found in early)
    later = sum(found.winner is not None for found in outcomes.values())
    assert (
        f"Three seeds decide only {decided} of the {len(outcomes)} comparisons, and six seeds "
        f"decide {later}." in text
    )

    better = sorted(-bits(quick, *pair) for pair in to_random if outcomes[pair].winner == pair[0])
    assert (len(better), len(to_random)) == (10, 11) and "**Ten of eleven" in text
    assert f"by {better[0]:.3f} to {better[-1]:.3f}." in text


def test_the_readme_states_parameters_times_and_cost_as_the_records_do(quick: Board) -> None:
    text, rows = readme(), {row.name: row for row in quick.rows}
    winners = [rows[name] for name in ("top1_moe", "top2_moe", "adaptive_moe")]
    dense = rows["dense_matched"]
    larger = sorted(_parameters(row) / _parameters(dense) for row in winners)
    assert f"{larger[0]:.1f} to {larger[-1]:.1f} times the parameters" in text
    counts = sorted(_parameters(row) / 1e6 for row in quick.ranked)
    assert f"{counts[0]:.1f}M to {counts[-1]:.1f}M parameters" in text

    speeds = [measures.relative_throughput(row, dense) or math.nan for row in winners]
    slower = sorted(1 / speed for speed in speeds)
    assert f"{slower[0]:.1f} to {slower[-1]:.1f} times as long to train" in text
    shares = {f"{100 * (row.mean(measures.active_share) or 0):.0f} %" for row in quick.ranked}
    assert shares == {"77 %"} and "77 % of the FLOPs" in text
    assert f"below {comparison(quick.config)['margin'] / math.log(2):.3f}" in text


def _parameters(row: Row) -> float:
    return row.mean(lambda record: record.training and record.training.parameters_total) or math.nan
