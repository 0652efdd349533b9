import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cli
from bench.commands import COMMANDS
from bench.errors import UserError
from tests import world

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: Any) -> Path:
    """The text of the tiny suite, and the cache of its corpus, built once."""
    folder: Path = tmp_path_factory.mktemp("elsewhere")
    world.write_text(folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, elsewhere: Path, monkeypatch: Any) -> Path:
    """A working directory with a tiny suite and an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(elsewhere / "cache"))
    world.write_suite(tmp_path / "tiny.yaml", elsewhere / "text.jsonl")
    (tmp_path / "empty").mkdir()
    return tmp_path


WRONG = [
    ([], "required: COMMAND"),
    (["rum"], "invalid choice: 'rum'"),
    (["run", "--no-such-option"], "--no-such-option. See `python -m bench run --help`"),
    (["run", "--suite", "quik"], "Did you mean 'quick'?"),
    (["run", "--suite", "absent.yaml"], "does not exist"),
    (
        ["run", "--suite", "tiny.yaml", "--budget", "1.5"],
        "field 'budget': Input should be less than 1 (got '1.5')",
    ),
    (["run", "--suite", "tiny.yaml", "--budget", "nan"], "field 'budget'"),
    (["run", "--suite", "tiny.yaml", "--budget", "half"], "invalid float value: 'half'"),
    (["run", "--suite", "tiny.yaml", "--match", "time"], "invalid choice: 'time'"),
    (["run", "--suite", "tiny.yaml", "--dtype", "int8"], "invalid choice: 'int8'"),
    (["run", "--suite", "tiny.yaml", "--device", "cdua"], "device is 'cdua'"),
    *(
        (["run", "--suite", "tiny.yaml", "--device", kind], f"device is {kind!r}")
        for kind in ("meta", "mps", "hpu", "cuda:99", "")
    ),
    (["run", "--suite", "tiny.yaml", "--workers", "-1"], "it is '-1'"),
    (
        ["run", "--suite", "tiny.yaml", "--seeds", str(10**13)],
        "--seeds is '10000000000000': give at most 10000",
    ),
    (
        ["run", "--suite", "tiny.yaml", "--set", f"seeds={10**13}"],
        "field 'seeds': Input should be less than or equal to 10000",
    ),
    (
        ["run", "--suite", "tiny.yaml", "--set", "evaluation.sweep=[-1, 1]"],
        "field 'evaluation.sweep.0': Input should be greater than 0",
    ),
    (
        ["run", "--suite", "tiny.yaml", "--seed-start", "-5"],
        "it is '-5'; give a whole number, 0 or more",
    ),
    (
        ["run", "--suite", "tiny.yaml", "--set", "seq_len=2024-99-99"],
        "'2024-99-99' is not valid YAML: month must be in 1..12",
    ),
    (["run", "--suite", "tiny.yaml", "--set", "x=" + "[" * 3000], "nested too deeply"),
    (
        ["run", "--suite", "tiny.yaml", "--set", "routed_layers=[-1]"],
        "routed_layers is [-1]; layers count from 0",
    ),
    (
        [
            "run",
            "--suite",
            "tiny.yaml",
            "--set",
            "comparison={margin: 0.02, looks: [1]}",
            "--seeds",
            "1",
        ],
        "looks is [1]; give",
    ),
    *(
        (["run", "--suite", "tiny.yaml", "--out", out], "File name too long")
        for out in ("n" * 300, "out/" + "n" * 300)
    ),
    (
        ["run", "--suite", "tiny.yaml", "--out", ""],
        "--out: it is '', which is no path (a path cannot be empty",
    ),
    *(
        (
            ["run", "--suite", "tiny.yaml", "--routers", "hash", "--out", out],
            f"--out is {out!r}, where nothing can be written",
        )
        for out in ("tiny.yaml", "tiny.yaml/below", "/proc/none", "/proc/none/below")
    ),
    (["run", "--suite", "n" * 300 + ".yaml"], "cannot be read"),
    (["check", "n" * 300 + ".py"], "File name too long"),
    *(
        ([command, "--results", ""], "--results: it is ''")
        for command in ("leaderboard", "report", "power")
    ),
    # known before the first step, so said before it
    *(
        ([command, "--suite", "tiny.yaml", "--set", assignment], said)
        for command in ("plan", "run")
        for assignment, said in (
            ("backbone=huge", "Unknown backbone preset 'huge'"),
            ("routed_layers=[9]", "routed_layers names layer 9; the backbone 'tiny' has"),
            (
                "evaluation.validation_windows=10000",
                "validation_windows is 10000, and the validation split of domain 'odd' has",
            ),
        )
    ),
    # and the command line is checked before a long text is read
    *(
        ([command, "--suite", "tiny.yaml", "--set", "data.path=absent.jsonl", *rest], said)
        for command, rest, said in (
            ("run", ["--seeds", "x"], "--seeds is 'x'"),
            ("run", ["--routers", ","], "--routers is ','"),
            ("plan", ["--routers", ","], "--routers is ','"),
            ("speed", ["--backbone", "huge"], "Unknown backbone preset 'huge'"),
        )
    ),
    (["run", "--suite", "tiny.yaml", "--budget", "0.01"], " at budget 0.01: "),
    (["run", "--suite", "tiny.yaml", "--workers", "two"], "it is 'two'"),
    (["run", "--suite", "tiny.yaml", "--checkpoint-seconds", "inf"], "it is 'inf'"),
    (["run", "--suite", "tiny.yaml", "--routers", "mlp_gat"], "Did you mean 'mlp_gate'?"),
    (["run", "--suite", "tiny.yaml", "--routers", "mlp gate"], "--routers names 'mlp gate'"),
    (["run", "--suite", "tiny.yaml", "--routers", ","], "name at least one router"),
    (["run", "--suite", "tiny.yaml", "--plugin", "absent.py"], "'absent.py' does not exist"),
    (
        ["run", "--suite", "tiny.yaml", "--official", "--routers", "mod"],
        "--official runs the suite's whole roster",
    ),
    *(
        (["run", "--suite", "tiny.yaml", "--seeds", seeds], f"--seeds is {seeds!r}")
        for seeds in ("", "0", "-1", "x", "1,1", ",", "1.5")
    ),
    (["leaderboard", "--results", "empty", "--check"], "empty/leaderboard.md does not exist"),
    (["reproduce", "nothing", "--results", "absent"], "There are no records"),
    (["list", "extra"], "invalid choice: 'extra'"),
    *(([command], "No records below 'runs'") for command in ("leaderboard", "report", "power")),
    (["reproduce", "mlp_gate"], "There are no records in 'runs/quick'. Add --official"),
    (["report", "--official"], "No records below 'results'"),
]


@pytest.mark.parametrize(
    ("arguments", "said"),
    WRONG,
    ids=lambda value: " ".join(value)[:80] if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_2(
    place: Path, capsys: Any, arguments: list[str], said: str
) -> None:
    before = sorted(place.rglob("*"))
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.startswith("error: ") and told.count("\n") == 1 and "Traceback" not in told
    assert sorted(place.rglob("*")) == before, "nothing is written"


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_is_there_for_every_command(command: tuple[str, ...], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: python -m bench" in capsys.readouterr().out


def loaded_by(*words: str) -> set[str]:
    """Return the packages that a command line loads in a process of its own."""
    lines = (
        "import sys; from bench import cli",
        f"try: cli.main({list(words)})",
        "except SystemExit: pass",
        "print(*sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_help_loads_nothing_heavy() -> None:
    assert not {"torch", "scipy", "pydantic", "rich", "yaml"} & loaded_by("--help")
    assert not {"torch", "scipy"} & loaded_by("run", "--help")


def test_the_second_list_loads_nothing_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path))
    assert "torch" in loaded_by("list"), "the first makes the tables"
    assert not {"torch", "scipy"} & loaded_by("list")


def test_help_lists_every_command_and_its_purpose(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {line}" in said for name, (_, line) in COMMANDS.items())


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("two\nlines   and spaces"), 2, "error: two lines and spaces\n"),
        (
            KeyboardInterrupt(),
            130,
            "interrupted; finished cells are kept, the same command resumes\n",
        ),
        (BrokenPipeError(), 0, ""),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/board.md"),
            2,
            "error: No space left on device: 'runs/board.md'. Mend that and run the same command; "
            "finished cells are kept.\n",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            2,
            "error: No usable temporary directory found in ['/tmp']. Mend that and run the same "
            "command; finished cells are kept.\n",
        ),
    ],
)
def test_how_a_command_ends(
    error: BaseException, code: int, told: str, monkeypatch: Any, capsys: Any
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("bench.commands.listing.run", fail)
    assert cli.main(["list"]) == code
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("bug", [AssertionError("a bug"), FileNotFoundError(errno.ENOENT, "a bug")])
def test_a_bug_of_our_own_is_not_hidden(bug: Exception, monkeypatch: Any) -> None:
    def fail(_: object) -> int:
        raise bug

    monkeypatch.setattr("bench.commands.listing.run", fail)
    with pytest.raises(type(bug), match="a bug"):
        cli.main(["list"])


def test_from_suite_to_board(place: Path, capsys: Any) -> None:
    command = [
        "run",
        "--suite",
        "tiny.yaml",
        "--routers",
        "hash",
        "--seeds",
        "1",
        "--workers",
        "0",
        "--out",
        "out",
    ]
    assert cli.main(command) == 0
    assert "ok" in capsys.readouterr().out
    record = place / "out" / "tiny" / "hash" / "b50-flops" / "seed-0.json"
    assert record.is_file() and (place / "out" / "leaderboard.md").is_file()
    before = record.read_bytes()
    assert cli.main(command) == 0
    assert "kept" in capsys.readouterr().out and record.read_bytes() == before


def test_a_run_does_not_start_if_a_folder_stands_in_the_place_of_its_board(
    place: Path, capsys: Any
) -> None:
    (place / "out" / "leaderboard.md").mkdir(parents=True)
    assert (
        cli.main(
            [
                "run",
                "--suite",
                "tiny.yaml",
                "--routers",
                "hash",
                "--seeds",
                "1",
                "--workers",
                "0",
                "--out",
                "out",
            ]
        )
        == 2
    )
    told = capsys.readouterr().err
    assert told.startswith("error: 'out/leaderboard.md' is a folder") and told.count("\n") == 1
    assert not list(place.rglob("seed-*.json"))
