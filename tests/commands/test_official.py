"""The needs of an official run: a device that computes, and the sources of a commit."""

import pytest

from bench.commands.official import check_device, require_clean_tree
from bench.errors import UserError


def test_a_device_that_computes_is_accepted_and_others_are_refused() -> None:
    check_device("cpu")
    for device in ("cuda:99", "meta", "mps", "", "cdua"):
        with pytest.raises(UserError, match=f"^device is '{device}'.*Set it to cpu"):
            check_device(device)
    check_device("cuda:99", here=False)
    with pytest.raises(UserError, match=r"^device is 'cdua'"):
        check_device("cdua", here=False)


@pytest.mark.parametrize("dirty", [False, True])
def test_sources_must_be_those_of_a_commit(dirty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef"
    monkeypatch.setattr("bench.runner.provenance.commit_state", lambda: (commit, dirty))
    if not dirty:
        require_clean_tree()
        return
    with pytest.raises(UserError, match=r"the tree at 0123456789ab differs: commit first"):
        require_clean_tree()


def test_without_a_commit_there_is_nothing_to_commit_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no commit is known here: install git"):
        require_clean_tree()
