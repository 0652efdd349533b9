import errno
import hashlib
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from bench.data import train_batch
from bench.routing.load_routers import load_all
from bench.training.checkpoint import CHECKPOINT_FORMAT, KEPT, LARGEST_SHARE, Checkpoints
from tests import world
from tests.world import EQUIPMENT, equipped, fit

STEPS = 6


class Killed(BaseException):
    """Stands for a signal: nothing in the bench may catch it."""


class Counter:
    """A part with a state of several kinds."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "kinds": [1.5, None, "text", {3: torch.arange(self.value)}]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
        assert torch.equal(state["kinds"][3][3], torch.arange(self.value))


class WithExtraState(nn.Linear):
    """A module whose Python attribute is part of its state."""

    seen = 0

    def get_extra_state(self) -> int:
        return self.seen

    def set_extra_state(self, state: int) -> None:
        self.seen = state


def filled(value: int) -> WithExtraState:
    module = WithExtraState(3, 2)
    nn.init.constant_(module.weight, value)
    module.seen = value
    return module


def saved(folder: Path, values: list[int], key: str = "key") -> list[Path]:
    """A checkpoint for each value, at the step of that number."""
    for value in values:
        Checkpoints(folder, key, 0, {"counter": Counter(value)}).save_if_due(filled(value), value)
    return sorted(folder.iterdir())


def restored(folder: Path, key: str = "key") -> tuple[int, ...] | None:
    """Return the parts of a folder: the value in the weights, the extra state and the other part.

    None if nothing is.
    """
    module, counter = filled(0), Counter()
    found = Checkpoints(folder, key, 0, {"counter": counter}).restore(module)
    values = (int(module.weight[0, 0]), module.seen, counter.value)
    assert found or values == (0, 0, 0), "a useless state must leave no trace"
    return values if found else None


def test_everything_comes_back(tmp_path: Path) -> None:
    saved(tmp_path, [4])
    assert restored(tmp_path) == (4, 4, 4)


def test_the_newest_is_used_and_one_is_kept_to_fall_back_on(tmp_path: Path) -> None:
    left = saved(tmp_path, [8, 9, 10, 11])
    assert [path.name for path in left] == ["step-000000010", "step-000000011"]
    assert len(left) == KEPT
    assert restored(tmp_path) == (11, 11, 11)


def test_a_state_from_a_device_that_is_missing_here_is_restored(
    tmp_path: Path, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda _: "cuda:1")
        (path,) = saved(tmp_path, [4])
    with pytest.raises(RuntimeError, match="CUDA device"):
        torch.load(path / "state.pt", weights_only=True)
    assert restored(tmp_path) == (4, 4, 4)


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert restored(tmp_path / "absent") is None


@pytest.mark.parametrize("field", ["key", "format"])
def test_a_checkpoint_of_another_cell_or_format_is_set_aside_with_a_word(
    tmp_path: Path, field: str, caplog: Any
) -> None:
    (path,) = saved(tmp_path, [3])
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == CHECKPOINT_FORMAT
    (path / "manifest.json").write_text(json.dumps({**manifest, field: "other"}))
    with caplog.at_level(logging.WARNING):
        assert restored(tmp_path) is None
    assert [found.name for found in tmp_path.iterdir()] == [f"aside-{path.name}"]
    (message,) = caplog.messages
    assert "of another cell or version" in message


def replace_file(path: Path, file: str, data: bytes) -> None:
    """Replace a file of a checkpoint, and mend its digest."""
    (path / file).write_bytes(data)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"][file] = hashlib.sha256(data).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))


class LeavesAMark:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_reading_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    folder, mark = tmp_path / "checkpoints", tmp_path / "mark"
    _, newest = saved(folder, [1, 2])
    state = torch.load(newest / "state.pt", weights_only=True)
    torch.save({**state, "more": LeavesAMark(mark)}, stream := io.BytesIO())
    replace_file(newest, "state.pt", stream.getvalue())
    assert restored(folder) == (1, 1, 1)
    assert not mark.exists()
    torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    assert mark.exists(), "it would have"


@pytest.mark.parametrize("file", ["weights.safetensors", "state.pt"])
@pytest.mark.parametrize("harm", ["garbage", "lacking"])
def test_harm_behind_a_mended_digest_costs_one_checkpoint_and_leaves_no_trace(
    tmp_path: Path, file: str, harm: str
) -> None:
    """An editor of a file may also change its SHA-256.

    What cannot be read, or lacks a part, is set aside all the same.
    """

    def edit(path: Path) -> None:
        if harm == "garbage":
            data = b"no such thing"
        elif file == "state.pt":
            state = torch.load(path / file, weights_only=True)
            del state["counter"]
            torch.save(state, stream := io.BytesIO())
            data = stream.getvalue()
        else:
            data = save({"bias": torch.zeros(1)})
        replace_file(path, file, data)

    first, second = saved(tmp_path, [1, 2])
    edit(second)
    assert restored(tmp_path) == (1, 1, 1)
    edit(first)
    assert restored(tmp_path) is None


@pytest.mark.parametrize("file", ["weights.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "emptied", "removed"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(
    tmp_path: Path, file: str, harm: str, caplog: Any
) -> None:
    first, second = saved(tmp_path, [1, 2])
    harmed, data = second / file, (second / file).read_bytes()
    if harm == "removed":
        harmed.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 0x80]) + data[middle + 1 :]
        harmed.write_bytes({"truncated": data[:middle], "flipped": flipped, "emptied": b""}[harm])
    with caplog.at_level(logging.WARNING):
        assert restored(tmp_path) == (1, 1, 1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"aside-{second.name}",
        first.name,
    ]
    (message,) = caplog.messages
    assert str(second) in message and "set aside" in message and "\n" not in message
    assert restored(tmp_path) == (1, 1, 1)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_done_to_a_checkpoint_the_state_is_a_saved_one(
    tmp_path_factory: Any, data: Any
) -> None:
    """And no harm to one costs another.

    The newest that nothing was done to is found, and its files stay as they were.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    older, newer = saved(folder, [1, 2])
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*.*"))}
    for path in data.draw(
        st.lists(st.sampled_from(sorted(before)), unique=True, max_size=4), label="files"
    ):
        content = bytearray(path.read_bytes())
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
        path.write_bytes(bytes(content))
    whole = {
        step: all(
            path.read_bytes() == content for path, content in before.items() if path.parent == step
        )
        for step in (older, newer)
    }
    found = restored(folder)
    assert found in (None, (1, 1, 1), (2, 2, 2))
    if whole[newer]:
        assert found == (2, 2, 2)
    if whole[older]:
        assert found is not None, "a good checkpoint was lost to harm done to the other"
    kept = [path for path in before if whole[path.parent]]
    assert {path: path.read_bytes() for path in kept} == {path: before[path] for path in kept}


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, [5])
    path.rename(tmp_path / ".writing-xyz")
    assert restored(tmp_path) is None


def test_what_a_killed_run_left_half_written_goes_with_the_next_write(tmp_path: Path) -> None:
    left = tmp_path / ".writing-step-000000005-killed"
    left.mkdir()
    (left / "part").write_bytes(b"half")
    other = tmp_path / ".writing-step-000000006-another"
    other.mkdir()
    assert {path.name for path in saved(tmp_path, [5])} == {other.name, "step-000000005"}


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(
    tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    (before,) = saved(tmp_path, [1])
    checkpoints = Checkpoints(tmp_path, "key", 0, {"counter": Counter(2)})

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for _ in range(3):
            checkpoints.save_if_due(filled(2), 2)
    assert caplog.text.count("No space left on device") == 1, "said once"
    assert list(tmp_path.iterdir()) == [before]
    checkpoints.save_if_due(filled(2), 2)
    assert restored(tmp_path) == (2, 2, 2)


def test_a_folder_that_cannot_be_made_costs_the_checkpoint(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").write_text("")
    Checkpoints(tmp_path / "file" / "below", "key", 0).save_if_due(filled(1), 1)
    assert "cannot be resumed" in caplog.text


def test_checkpoints_keep_their_distance_in_time(tmp_path: Path, monkeypatch: Any) -> None:
    clock = [100.0]
    monkeypatch.setattr("bench.training.checkpoint.time.monotonic", lambda: clock[0])
    checkpoints = Checkpoints(tmp_path, "key", 20.0, {"slow": Slow(clock, 3.0)})
    taken: list[float] = []
    for step in range(200):
        clock[0] = max(clock[0], 100.0 + step)
        checkpoints.save_if_due(filled(1), step)
        if (tmp_path / f"step-{step:09}").exists():
            taken.append(clock[0] - 3.0)
    assert taken == [
        120.0,
        120.0 + 3.0 + 3.0 / LARGEST_SHARE,
        120.0 + 2 * (3.0 + 3.0 / LARGEST_SHARE),
    ]


class Slow:
    """A part whose state takes time to gather."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def state_dict(self) -> dict[str, Any]:
        self.clock[0] += self.seconds
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def dying_at(step: int) -> Callable[..., Any]:
    def draw(*arguments: Any, **options: Any) -> Any:
        if options["step"] == step:
            raise Killed
        return train_batch(*arguments, **options)

    return draw


@pytest.mark.parametrize("router", sorted(load_all()))
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(
    router: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """Weights, buffers, optimisers, noise, ledger, auxiliary losses and probes, killed at the
    beginning and at the end.
    """

    def run(folder: Path) -> str:
        built, probes, checkpoints = (
            world.model(router),
            Probes(),
            Checkpoints(folder, router, 0),
        )
        checkpoints.parts["probes"] = probes
        trained = world.fit(built, 4, probe=probes, checkpoints=checkpoints)
        state = [
            built.decoder.state_dict(),
            probes.seen,
            trained.auxiliary,
            checkpoints.parts["training"].state_dict(),
        ]
        return world.digest(state)

    whole = run(tmp_path / "whole")
    for step in (1, 3):
        monkeypatch.setattr("bench.training.loop.train_batch", dying_at(step))
        with pytest.raises(Killed):
            run(tmp_path / "killed")
    monkeypatch.undo()
    assert run(tmp_path / "killed") == whole
    assert run(tmp_path / "killed") == whole, "resumed at the very end"


class Probes:
    """Keeps the reports, without the seconds."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(
        self, step: int, tokens: int, flops: float, seconds: float, train_loss: float
    ) -> None:
        del seconds
        self.seen.append((step, tokens, flops, train_loss))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


@pytest.mark.parametrize(
    "training",
    [
        EQUIPMENT | {"weight_decay": 0.1},
        {"noise": "noisy_top_k", "balance_bias": 0.05},
        {"noise": "jitter"},
    ],
)
def test_a_run_that_was_killed_ends_as_it_would_have(
    training: dict[str, Any], tmp_path: Path
) -> None:
    def kill(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    recipe = {"router": training, "adam_lr": 0.002, "muon_lr": 0.01, "probes": STEPS}
    whole, killed, resumed = (equipped("top2_moe", **training) for _ in range(3))
    fit(whole, STEPS, **recipe)
    checkpoints = Checkpoints(tmp_path, "key", 0)
    with pytest.raises(Killed):
        fit(killed, STEPS, checkpoints=checkpoints, probe=kill, **recipe)
    fit(resumed, STEPS, checkpoints=Checkpoints(tmp_path, "key", 0), **recipe)
    ends = [found.decoder.state_dict() for found in (whole, resumed)]
    assert world.digest(ends[0]) == world.digest(ends[1])
    assert whole.ledger.spent == resumed.ledger.spent
    if "balance_bias" in training:
        assert any(value.any() for name, value in ends[0].items() if name.endswith("noise.bias"))
