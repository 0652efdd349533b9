"""A command in odd surroundings: interrupts, closed pipes, few signs, narrow screens."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bench.__main__ import not_installed
from bench.cli import INTERRUPTED
from bench.files import console
from bench.record import read_records
from tests import world
from tests.runner.jobs import PLUGINS

ROOT = Path(__file__).resolve().parents[1]
BENCH = [sys.executable, "-m", "bench"]
SHORT = [sys.executable, "-m", "tests.short"]
"""The bench with short cells."""


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}


def bench(
    place: Path, *arguments: str, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "bench", *arguments],
        cwd=place,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize(
    ("sent", "whom"),
    [
        (signal.SIGINT, "the parent alone"),
        (signal.SIGINT, "the group while a worker starts"),
        (signal.SIGTERM, "the group while a worker starts"),
        pytest.param(signal.SIGTERM, "the parent alone", marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_ends_a_run_at_once_with_a_word(
    tmp_path: Path, sent: signal.Signals, whom: str
) -> None:
    endless = {"reference_tokens": 10**9, "batch_size": 4, "probes": 2}
    suite = world.write_suite(tmp_path / "tiny.yaml", world.write_text(tmp_path), train=endless)
    command = [*BENCH, "run", "--suite", str(suite), "--routers", "mlp_gate", "--seeds", "1"]
    run = subprocess.Popen(
        [*command, "--workers", "1", "--out", "out"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job ignores interrupts, and its children with it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    try:
        started = interrupt(run, sent, whom, tmp_path)
        _, error = run.communicate(timeout=60)
        deadline = time.monotonic() + 20
        while any(map(runs, started)):
            assert time.monotonic() < deadline, "a worker is left"
            time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    assert (run.returncode, error) == (130, f"{INTERRUPTED}\n")


def interrupt(
    run: subprocess.Popen[str], sent: signal.Signals, whom: str, place: Path
) -> list[str]:
    """Send a signal when the time has come, and return the processes that the run had started."""
    assert run.stdout is not None
    while "records in" not in run.stdout.readline():
        assert run.poll() is None
    if whom == "the parent alone":
        while not list(place.rglob("*.lock")):  # until the worker has the cell
            assert run.poll() is None
            time.sleep(0.1)
    else:
        while len(children(run.pid)) < 2:  # the worker, and the tracker of resources
            assert run.poll() is None
            time.sleep(0.01)
    started = children(run.pid)
    if whom == "the parent alone":
        run.send_signal(sent)
    else:
        os.killpg(run.pid, sent)
    return started


def runs(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and "Z" not in stat.read_text().rpartition(")")[2]


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split() + [
        child
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for child in (task / "children").read_text().split()
    ]


AS_PYTHON_DOES = """
import os, runpy, sys
sys.path[0] = os.getcwd()
import bench
assert os.getcwd() in next(iter(bench.__path__))
sys.argv = ["bench", *sys.argv[2:]]
runpy.run_path({main!r}, run_name="__main__")
"""
"""What `python -m bench` does where an editable installation finds `bench.__main__`."""
SCRIPT = """
import sys
from bench.__main__ import start
if __name__ == "__main__":
    sys.exit(start())
"""
"""The file that an installation writes."""


@pytest.mark.parametrize(
    "way",
    ["-m", "a package of that name", pytest.param("the script", marks=pytest.mark.slow)],
)
def test_a_folder_that_is_called_as_ours_hides_nothing(tmp_path: Path, way: str) -> None:
    here = tmp_path / "here"
    for name in ("bench", "routers"):
        (here / name).mkdir(parents=True)
    (here / "routers" / "__init__.py").write_text("raise ImportError('theirs')")
    (here / "plugin.py").write_text(PLUGINS)
    (tmp_path / "token-routing-bench").write_text(SCRIPT)
    how = ["-m", "bench"]
    if way == "the script":
        how = [str(tmp_path / "token-routing-bench")]
    elif way == "a package of that name":
        (here / "bench" / "__init__.py").touch()
        how = ["-c", AS_PYTHON_DOES.format(main=str(ROOT / "bench" / "__main__.py")), "-m"]
    suite = world.write_suite(here / "tiny.yaml", world.write_text(tmp_path))
    # The plugin's own process answers with all routers that it found, before anything is sized.
    command = ["plan", "--suite", str(suite), "--plugin", "plugin.py", "--routers", "harmles"]
    done = subprocess.run(
        [sys.executable, *how, *command],
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Did you mean 'harmless'? Available: " in done.stderr and " hash, " in done.stderr


@pytest.mark.parametrize("arguments", [("list", "routers"), ("--help",)], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as stdout:  # noqa: PTH123  a descriptor has no path
        done = subprocess.run(
            [*BENCH, *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_python_without_our_packages_is_one_line(tmp_path: Path) -> None:
    done = bench(tmp_path, "list", flags=("-S",))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {sys.executable} lacks '")


def test_an_old_python_is_one_line_and_an_import_of_ours_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImportError):
        not_installed(ImportError("a bug", name="bench.cli"))
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert not_installed(ImportError("cannot import name 'UTC'", name="datetime")) == 2
    assert " is older than 3.11. Use" in capsys.readouterr().err


def test_closed_streams_end_no_run(tmp_path: Path) -> None:
    suite = world.write_suite(tmp_path / "tiny.yaml", world.write_text(tmp_path))
    command = ["run", "--suite", str(suite), "--routers", "mlp_gate", "--seeds", "1"]
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *SHORT, *command, "--workers", "1"],
        cwd=tmp_path,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0
    assert [record.status for _, record in read_records(tmp_path / "runs")] == ["ok"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
@pytest.mark.parametrize("arguments", [("list", "routers"), ("--help",)], ids=" ".join)
def test_a_full_disk_below_stdout_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as stdout:
        done = subprocess.run(
            [*BENCH, *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: No space left on device.") and done.stderr.count("\n") == 1
    )


def test_a_console_raises_for_a_reader_that_went_away() -> None:
    with pytest.raises(BrokenPipeError):
        console().on_broken_pipe()


def test_a_path_stays_on_its_line_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    console().print("records in " + "long/" * 30, markup=False)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_sign_that_stdout_lacks_ends_no_run(tmp_path: Path) -> None:
    evaluation = world.suite_data(Path())["evaluation"] | {"tolerance": 1e-9}
    text = world.write_text(tmp_path)
    suite = world.write_suite(tmp_path / "tiny.yaml", text, evaluation=evaluation)
    command = ("run", "--suite", str(suite), "--routers", "random@ffn", "--seeds", "1")
    ascii_only = environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    done = subprocess.run(
        [*SHORT, *command, "--workers", "0", "--out", "out"],
        cwd=tmp_path,
        env=ascii_only,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0 and not done.stderr
    assert "\\xb1" in done.stdout, "the row misses its budget by more than +-0"
    assert [record.status for _, record in read_records(tmp_path / "out")] == ["off_budget"]
    assert "±" in (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")


def test_the_version_is_said(tmp_path: Path) -> None:
    assert bench(tmp_path, "--version").stdout.startswith("token-routing-bench ")
