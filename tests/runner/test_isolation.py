"""Fresh processes end with their parent, print nothing to stdout, and die alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.runner.isolation import INTERRUPTS, in_fresh_process


def test_a_function_runs_in_another_process_and_its_errors_come_back() -> None:
    assert in_fresh_process(os.getpid) != os.getpid()
    with pytest.raises(UserError, match="died"):
        in_fresh_process(os._exit, 3)
    with pytest.raises(ValueError, match="invalid literal"):
        in_fresh_process(int, "x")


def test_a_process_starts_deaf_to_interrupts_and_its_parent_hears_them_again() -> None:
    blocked = in_fresh_process(signal.pthread_sigmask, signal.SIG_BLOCK, [])
    assert signal.SIGINT in blocked and signal.SIGTERM not in blocked
    assert not INTERRUPTS & signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_prints_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    in_fresh_process(subprocess.run, ["echo", "loud"])
    out, err = capfd.readouterr()
    assert "loud" not in out and "loud" in err


def test_a_worker_does_not_outlive_its_parent() -> None:
    code = (
        "import os, time; from bench.runner.isolation import _begin; middle = os.fork();\n"
        "if middle: os.waitpid(middle, 0); raise SystemExit\n"
        "parent = os.getpid(); child = os.fork()\n"
        "if child: print(child, flush=True); time.sleep(0.5); os._exit(0)\n"
        "_begin(parent, False, {}); time.sleep(60)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    child, deadline = int(made.stdout), time.monotonic() + 20
    while (
        Path(f"/proc/{child}").exists()
        and "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2]
    ):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.1)


def test_a_killed_process_leaves_no_semaphore_and_no_warning_of_python() -> None:
    """The tracker removes the semaphore in both cases; alone it would print a warning."""
    made = "import multiprocessing as mp, os; lock = mp.get_context('spawn').Semaphore();"
    end = "print(lock._semlock.name); os.kill(os.getpid(), 9)"
    ours = "from bench.runner.isolation import start_tracker; start_tracker();"
    for before, silent in (("", False), (ours, True)):
        code = [sys.executable, "-u", "-c", before + made + end]
        # The tracker holds stderr open, so this waits for its end.
        killed = subprocess.run(code, capture_output=True, text=True, timeout=60)
        assert killed.returncode == -signal.SIGKILL
        assert ("resource_tracker" not in killed.stderr) == silent, killed.stderr
        assert not Path("/dev/shm", f"sem.{killed.stdout.strip().removeprefix('/')}").exists()
