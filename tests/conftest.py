"""Set up the conditions of every test: one thread, shapes checked, reproducible examples."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial, update_wrapper
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args
from unittest.mock import patch

# Before torch is imported anywhere: pytest-xdist fills the cores with processes.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import config, install_import_hook

WITHOUT_SHAPES = {
    *("board", "commands", "conformance", "runner", "stats", "study"),
    *("test_cli.py", "test_fingerprints.py", "test_fuzz.py", "test_packaging.py"),
    *("evaluation/test_shares.py", "evaluation/test_right_paths.py", "training/test_checkpoint.py"),
}
"""Folders and files of `tests/` that run whole cells or trainings, checks or pages.

They call again what the folders of the modules have checked, a thousand times, so that checking
shapes would be half of their cost; there the code runs as it does for a user.
"""


def check_shapes() -> None:
    """Execute the annotations of bench and routers, shapes included; an int serves as a float, as
    everywhere in typing.

    The hook wants a checker that it can import by name, hence the module.
    """
    checker = ModuleType("annotation_checker")
    vars(checker)["check"] = beartype(
        conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError)
    )
    sys.modules[checker.__name__] = checker
    # The hook decorates every function with the decorator of this name.
    jaxtyping.jaxtyped = partial(check_types_or_shapes, jaxtyping.jaxtyped)
    install_import_hook(["bench", "routers"], f"{checker.__name__}.check")


def check_types_or_shapes(jaxtyped: Callable[..., Any], *, typechecker: Any) -> Any:
    """Return a decorator: `jaxtyped`, or the type checker alone for a function without shapes.

    `jaxtyped` binds the arguments of each call, which takes longer than most functions.
    """

    def decorate(decorated: Any) -> Any:
        if not isinstance(decorated, FunctionType) or any(
            has_shape(annotation) for annotation in decorated.__annotations__.values()
        ):
            return jaxtyped(typechecker=typechecker)(decorated)
        checked = typechecker(decorated)

        def check_or_call(*arguments: Any, **options: Any) -> Any:
            called = decorated if config.jaxtyping_disable else checked
            return called(*arguments, **options)

        # A function of jaxtyping, so that no error names it as the place in the author's code.
        own = FunctionType(
            check_or_call.__code__, vars(jaxtyping), closure=check_or_call.__closure__
        )
        return update_wrapper(own, decorated)

    return decorate


def has_shape(annotation: Any) -> bool:
    """Return whether an annotation holds an array with its shape."""
    return (
        isinstance(annotation, str)
        or hasattr(annotation, "dim_str")
        or any(map(has_shape, get_args(annotation)))
    )


@pytest.fixture(scope="session", autouse=True)
def short_cells() -> Iterator[None]:
    """Shorten the measurements of a cell after its training."""
    from tests import short

    with short.short_cells():
        yield


@pytest.fixture(scope="module")
def full_proof() -> Iterator[None]:
    """Prove causality with as many trials as a user's cell does."""
    from tests import short

    with patch.multiple(short.causality_proof, **short.FULL):
        yield


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin fresh processes as copies of this one, which need not load torch again.

    For tests of the work in such a process, and not of its start.
    """
    monkeypatch.setattr("bench.runner.isolation.START_METHOD", "fork")


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Leave all drawings empty, for tests whose subject is no drawing.

    `tests/board` and `tests/study` look at drawings.
    """
    from tests import short

    with short.undrawn():
        yield


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking through torch and all tests again and again.

    Every cell begins with a full collection, which took a quarter of a second.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check shapes, or do not, as the place of the test says."""
    place = item.path.relative_to(Path(__file__).parent)
    without = not WITHOUT_SHAPES.isdisjoint((place.parts[0], place.as_posix()))
    config.update("jaxtyping_disable", without)


# TOKEN_ROUTING_BENCH_CHECK_SHAPES=0 runs the tests without.
if os.environ.get("TOKEN_ROUTING_BENCH_CHECK_SHAPES", "1") != "0":
    check_shapes()

# Shared machines make deadlines flaky; CI must fail for the change, not for the draw.
hypothesis.settings.register_profile("bench", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("bench")
