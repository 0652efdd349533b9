"""Declarations: the bundled ones hold together, and bad ones are refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.backbone.presets import decoder_config
from bench.errors import UserError
from bench.flops.budget import training_target
from bench.routing.load_routers import load_all
from bench.study.read_study import load_study, study_names, suites_of
from tests.study import made
from tests.test_fuzz import places, put, values


def claim(**changes: Any) -> dict[str, Any]:
    comparison = {"row": "mlp_gate", "control": "random@ffn", "expect": "lower"} | changes
    return {"claims": [{"text": "t", "source": "s", "comparisons": [comparison]}]}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"titel": "x"}, "Unknown field 'titel'. Did you mean 'title'?"),
    ({"settings": {"half": {"suit": "quick"}}}, "Did you mean 'settings.half.suite'?"),
    ({"name": "Made Up"}, "field 'name'"),
    ({"rows": made.DATA["rows"] + ["mlp_gate"]}, "twice"),
    (claim(row="mlp_gat"), "Did you mean 'mlp_gate'?"),
    (claim(control="mlp_gate"), "with itself"),
    (claim(measure="los"), "Did you mean 'loss'?"),
    (claim(measure="entropy", margin=0.1, best=True), "entropy is no loss"),
    (claim(measure="churn"), "needs a margin of its own"),
    (claim(measure="seconds", margin=0.5), "a factor above 1"),
    (claim(expect="equal", least=0.1), "has no `least`"),
    (claim(expect="better"), "'lower', 'higher', 'equal', 'not_lower' or 'not_higher'"),
    (claim(settings=["hlaf"]), "Did you mean 'half'?"),
    ({"measures": ["speed"]}, "Unknown measure 'speed'"),
    ({"sizes": {"full": {"seeds": 3, "core_minutes": 1}}}, "sizes lacks 'small'"),
    ({"sizes": {"small": {"seeds": 1, "core_minutes": 1}}}, "greater than or equal to 2"),
    ({"sizes": {"small": {"seeds": 3, "core_minutes": 1, "rows": ["mod"]}}}, "Unknown row 'mod'"),
    (
        {
            "rows": [
                {"name": "mlp_gate", "settings": ["half"]},
                {"name": "random@ffn", "settings": ["quarter"]},
                "mlp_gate@wide",
            ]
        },
        "no setting",
    ),
]


@pytest.mark.parametrize(
    ("changes", "said"), WRONG, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_bad_declaration_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = made.write_file(tmp_path / "bad.yaml", **changes)
    with pytest.raises(UserError) as refused:
        load_study(str(path))
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["- a\n- b", "{", "3", ""])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        load_study(str(tmp_path / "bad.yaml"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(choice=st.data())
def test_whatever_stands_anywhere_is_read_or_refused(tmp_path: Path, choice: Any) -> None:
    place = choice.draw(st.sampled_from(places(made.DATA)))
    (tmp_path / "odd.yaml").write_text(
        yaml.safe_dump(put(made.DATA, place, choice.draw(values))), encoding="utf-8"
    )
    try:
        load_study(str(tmp_path / "odd.yaml"))
    except UserError as error:
        assert "\n" not in str(error)


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


def test_the_precision_of_a_setting_is_not_left_to_the_machine() -> None:
    left = made.study(settings={"half": {"suite": "quick", "set": {"dtype": "auto"}}})
    said = refused(lambda: suites_of(left, left.size("small")))
    assert "differs between machines. Write float32 or bfloat16" in said


def test_a_cell_is_never_shorter_than_its_suites() -> None:
    for field in ("train.reference_tokens", "evaluation.validation_windows"):
        shorter = made.study(settings={"half": {"suite": "quick", "set": {field: 8}}})
        assert "never shorter than its suite's" in refused(
            lambda: suites_of(shorter, shorter.size("small"))  # noqa: B023
        )
    longer = made.study(
        settings={"half": {"suite": "quick", "set": {"train.reference_tokens": 10**7}}}
    )
    assert suites_of(longer, longer.size("small"))["half"].train.reference_tokens == 10**7


def test_a_size_may_cut_the_grid_and_use_other_suites() -> None:
    small = {
        "seeds": 3,
        "core_minutes": 1,
        "rows": ["mlp_gate", "random@ffn"],
        "settings": ["half"],
    }
    full = {"seeds": 6, "first_seed": 2, "core_minutes": 9, "suites": {"half": "smoke"}}
    declared = made.study(sizes={"small": small, "full": full})
    (half,) = suites_of(declared, declared.size("small")).values()
    assert (half.name, half.seeds, [row.name for row in half.rows]) == (
        "quick",
        3,
        ["mlp_gate", "random@ffn"],
    )
    whole = suites_of(declared, declared.size("full"))
    assert list(declared.size("full").numbers) == [2, 3, 4, 5, 6, 7]
    assert {name: (suite.name, suite.budget) for name, suite in whole.items()} == {
        "half": ("smoke", 0.5),
        "quarter": ("quick", 0.25),
    }
    assert "no such" not in refused(lambda: declared.size("medium")) and "small" in refused(
        lambda: declared.size("medium")
    )


@pytest.mark.parametrize("name", study_names())
def test_a_bundled_study_names_suites_rows_and_options_that_there_are(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    known = load_all()
    for size in study.sizes.values():
        for suite in suites_of(study, size).values():
            for row in suite.rows:
                known[row.router].make(row.options)


@pytest.mark.parametrize("name", study_names())
def test_every_row_of_a_bundled_study_is_compared(name: str) -> None:
    study = load_study(name)
    compared = {
        row for comparison in study.comparisons for row in (comparison.row, comparison.control)
    }
    unranked = {row.name for row in study.rows if row.role in ("bracket", "control")}
    assert {row.name for row in study.rows} - unranked <= compared


def test_the_training_budgets_of_isoflop_are_equal_at_every_size() -> None:
    study = load_study("mod-isoflop")
    flops: dict[str, list[float]] = {}
    for setting, suite in suites_of(study, study.size("small")).items():
        # Every character of the text is a token, with one for the end of a document.
        config = decoder_config(suite.backbone, 257, suite.seq_len, suite.qk_gain)
        price = training_target(config, suite.routed_layers, suite.seq_len, suite.budget, False)
        series = study.settings[setting].series
        flops.setdefault(series, []).append(price * suite.train.reference_tokens)
    for series, found in flops.items():
        assert len(found) == 4 and max(found) / min(found) == pytest.approx(1, abs=1e-5)
        assert f"{found[0] / 1e12:.1f}e12" == series
