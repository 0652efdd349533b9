"""The time left, against runs that are simulated second by second on a clock of the test's own."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench.commands.plan import _summary
from bench.errors import UserError
from bench.planning.forecast import Expected, Forecast, expect
from bench.runner.cell_phase import PHASES, Beat, Timing
from bench.runner.resume_cell import resume_cell
from tests import world
from tests.runner.jobs import from_plugin, job

FLOPS = 1e9


@dataclass(frozen=True)
class Moment:
    """A moment of a simulated run: the estimate, and the truth."""

    finished: int
    estimate: float | None
    truth: float


def timing(training: float, rest: float, backbone: float = 0.0) -> Timing:
    return dict(zip(PHASES, (0.0, backbone, training, rest), strict=True))


def beat_at(digest: str, found: Timing, begun: float, now: float) -> Beat:
    """Return the report of a cell with these seconds, some time after its start."""
    since = begun
    for phase in PHASES:
        if now < since + found[phase] or phase == PHASES[-1]:
            known = phase in ("backbone", "training")
            share = (now - since) / found[phase] if known else 0.0
            return Beat(digest, digest, phase, share, None, since, now)
        since += found[phase]
    raise AssertionError


def simulate(
    cells: list[Expected], truths: dict[str, Timing], workers: int, step: float
) -> Iterator[Moment]:
    """Run cells on workers that take the next one as soon as they are free; look at each step."""
    begun: dict[str, float] = {}
    ends: dict[str, float] = {}
    free = [0.0] * workers
    for cell in cells:
        at = min(free)
        begun[cell.digest], ends[cell.digest] = at, at + sum(truths[cell.digest].values())
        free[free.index(at)] = ends[cell.digest]
    forecast, finished, now = Forecast(cells, workers), set[str](), 0.0
    while now < max(free):
        for digest in sorted((d for d in ends if ends[d] <= now), key=lambda d: ends[d]):
            if digest not in finished:
                finished.add(digest)
                forecast.finish(digest, truths[digest])
        running = {
            digest: beat_at(digest, truths[digest], begun[digest], now)
            for digest in ends
            if begun[digest] <= now < ends[digest]
        }
        yield Moment(len(finished), forecast.seconds_left(running, now), max(free) - now)
        now += step


ROWS = {"fast": 1.0, "slow": 3.0, "middle": 2.0}


def grid(seeds: int, noise: float = 0.0) -> tuple[list[Expected], dict[str, Timing]]:
    """Rows of unequal speed at some seeds, each with 40 s of training times its factor."""
    draw = random.Random(0)
    cells = [Expected(f"{row}-{seed}", row, FLOPS) for seed in range(seeds) for row in ROWS]
    return cells, {
        cell.digest: timing(
            40 * ROWS[cell.row] * draw.uniform(1 - noise, 1 + noise),
            25 * draw.uniform(1 - noise, 1 + noise),
        )
        for cell in cells
    }


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_estimate_is_exact_once_every_row_has_finished(workers: int) -> None:
    cells, truths = grid(seeds=6)
    moments = list(simulate(cells, truths, workers, step=3.0))
    assert moments[0].estimate is None
    for moment in moments:
        assert (moment.estimate is None) == (moment.finished == 0)
        if moment.finished >= workers + len(ROWS):
            assert moment.estimate == pytest.approx(moment.truth, abs=1e-6)


def test_the_estimate_keeps_its_bounds_with_noise_and_before_all_rows_are_known() -> None:
    cells, truths = grid(seeds=8, noise=0.1)
    moments = [m for m in simulate(cells, truths, 2, step=3.0) if m.estimate is not None]
    for moment in moments:
        # Until each row has finished once, others of up to thrice the time replace it.
        bound = 0.1 if moment.finished >= 5 else 0.6
        assert abs((moment.estimate or 0) - moment.truth) <= bound * moment.truth + 10


def test_the_training_of_other_budgets_takes_its_own_time() -> None:
    forecast = Forecast([Expected("a", "a", FLOPS), Expected("b", "b", 3 * FLOPS)], 1)
    forecast.finish("a", timing(10.0, 5.0))
    assert forecast.seconds_left({}, 0.0) == pytest.approx(3 * 10 + 5)


def test_cells_are_dealt_to_workers_one_by_one() -> None:
    """Three cells on two workers take as long as two, and not one and a half."""
    forecast = Forecast([Expected(f"{i}", "r", FLOPS) for i in range(4)], 2)
    forecast.finish("0", timing(10.0, 0.0))
    assert forecast.seconds_left({}, 0.0) == pytest.approx(20)


def test_a_running_cell_counts_by_its_share_and_an_overdue_one_as_nothing() -> None:
    forecast = Forecast([Expected(f"{i}", "r", FLOPS) for i in range(2)], 1)
    forecast.finish("0", timing(100.0, 50.0))
    training = Beat("1", "", "training", 0.75, 3.0, since=0.0, written=0.0)
    assert forecast.seconds_left({"1": training}, 7.0) == pytest.approx(25 + 50)
    evaluation = replace(training, phase="evaluation", share=0.0, since=100.0)
    assert forecast.seconds_left({"1": evaluation}, 130.0) == pytest.approx(20)
    assert forecast.seconds_left({"1": evaluation}, 999.0) == 0.0


def test_one_cell_of_a_seed_pretrains_and_the_others_wait() -> None:
    cells = [Expected(f"{i}", "r", FLOPS, pretrains=i % 2 == 0) for i in range(4)]
    forecast = Forecast(cells, 1)
    forecast.finish("0", timing(10.0, 5.0, backbone=60.0))
    forecast.finish("1", timing(10.0, 5.0, backbone=58.0))
    assert forecast.seconds_left({}, 0.0) == pytest.approx(2 * 15 + 60)


def test_a_failed_cell_leaves_the_run_and_teaches_nothing() -> None:
    forecast = Forecast([Expected("a", "r", FLOPS), Expected("b", "r", FLOPS)], 1)
    forecast.finish("a", None)
    assert list(forecast.waiting) == ["b"] and forecast.seconds_left({}, 0.0) is None


def test_kept_cells_are_found_and_failed_ones_are_to_run(text: Path, tmp_path: Path) -> None:
    done, failed = world.cell(text), world.cell(text, budget=0.01)
    other = world.cell(text, seed=1)
    for cell in (done, failed):
        resume_cell(cell, job(tmp_path))
    expected, kept = expect([done, failed, other], tmp_path)
    assert kept == {done.digest}
    assert [cell.digest for cell in expected] == [failed.digest, other.digest]


def test_a_cell_without_weights_is_to_run_if_the_run_keeps_them(text: Path, tmp_path: Path) -> None:
    without, having = (world.cell(text, seed=seed) for seed in range(2))
    resume_cell(without, job(tmp_path))
    resume_cell(having, job(tmp_path, keep_weights=True))
    both = [without, having]
    expected, kept = expect(both, tmp_path, keep_weights=True)
    assert [cell.digest for cell in expected] == [without.digest] and kept == {having.digest}
    assert expect(both, tmp_path)[1] == {cell.digest for cell in both}


def test_the_flops_of_a_cell_are_those_of_plan(text: Path, tmp_path: Path) -> None:
    cell = world.cell(text)
    (expected,), _ = expect([cell], tmp_path)
    assert f"training {expected.flops:.3g} FLOPs" in _summary(cell.suite, 1)[0]


def test_a_plugin_is_not_looked_up_here(
    text: Path, tmp_path: Path, harmful: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_no_file(*_: object) -> None:
        raise UserError("the plugin was imported")

    monkeypatch.setattr("bench.runner.resolve.load_file", load_no_file)
    cells = from_plugin(text, harmful, "harmless")
    expected, kept = expect(cells, tmp_path)
    assert [cell.digest for cell in expected] == [cells[0].digest] and not kept
