"""A missing library skips a comparison on a user's machine, and fails it under CI."""

import pytest

from tests.libraries import library


def test_a_missing_library_fails_under_ci_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert library("torch").__name__ == "torch"
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        library("no_such_library")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no_such_library"):
        library("no_such_library")
