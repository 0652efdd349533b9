"""Tables of a run of `bench speed`, and their section in the report."""

import html5lib

from bench.pages import render_report
from bench.pages.speed import tables, title
from bench.record.speed import DecodeSpeed, Memory
from tests.record.test_speed import speed_run


def test_tables_have_the_figures_of_the_run():
    step, parts, yardsticks = tables(speed_run())
    assert step[1] == [
        ["dense", "10.00", "1.00", "0.50", "0.75", "0.10", "1.00"],
        ["slow", "30.00", "3.00", "0.50", "0.75", "0.10", "3.00"],
    ]
    assert len(step[0]) == len(step[1][0]) and step[0][2] == "time / dense"
    assert parts == (
        ["share of a step", "paths", "other"],
        [["dense", "75.0 %", "25.0 %"], ["slow", "25.0 %", "75.0 %"]],
    )
    assert yardsticks[1] == [["matrix products, float32", "100", "GFLOP/s"]]


def test_time_over_flops_includes_the_optimiser():
    run = speed_run()
    dense, slow = run.rows
    # (0.75 + 1.8) / (0.75 + 0.1) is 3, and so is the ratio of times.
    work = slow.works["step"].model_copy(update={"optimizer": 1.8})
    header, lines = tables(
        speed_run(rows=(dense, slow.model_copy(update={"works": {"step": work}})))
    )[0]
    assert header[-1] == "time over FLOPs" and [line[-1] for line in lines] == ["1.00", "1.00"]


def test_decoding_stands_beside_the_reference_at_the_same_batch_size():
    made = [
        DecodeSpeed(row=row, batch=batch, tokens_per_second=batch * speed, spread=0.05,
                    flops=10 * speed, cache_bytes=2000 / speed, reserved_bytes=4000, router_bytes=0)
        for batch in (1, 8) for row, speed in (("dense", 100), ("slow", 50))
    ]  # fmt: skip
    header, lines = tables(speed_run(decoding=tuple(made)))[1]
    assert lines[3] == ["slow", "8", "400", "5.0", "0.50", "0.50", "2.00", "0.0", "4.0", "0.0"]
    assert len(header) == len(lines[3]) and lines[0][4:7] == ["1.00"] * 3


def test_memory_stands_beside_the_reference():
    run = speed_run()
    measured = [Memory(tensors_mb=80.0, process_mb=400.4), Memory(tensors_mb=50.0, process_mb=None)]
    rows = [
        row.model_copy(update={"memory": one}) for row, one in zip(run.rows, measured, strict=True)
    ]
    header, lines = tables(speed_run(rows=tuple(rows)))[1]
    assert header == ["memory of a step", "tensors MiB", "/ dense", "process MiB"]
    assert lines == [["dense", "80.0", "1.00", "400"], ["slow", "50.0", "0.62", "–"]]


def test_the_title_names_the_conditions():
    assert title(speed_run(compiled=True)) == (
        "quick: tiny, 16 x 128 tokens a step, float32, compiled, cpu, a processor, 1 thread, "
        "5 rounds by processor time of this process"
    )


def test_the_report_shows_runs_if_there_are_any():
    page = render_report([], [speed_run(processor="<b>a processor</b>")])
    document = html5lib.HTMLParser(strict=True).parse(page)
    text = "".join(document.itertext())
    assert "<b>a processor</b>" in text and "30.00" in text and "python -m bench speed" in text
    assert 'id="speed"' not in render_report([])
