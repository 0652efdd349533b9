"""The loads of paths in a record."""

from tests.board.synthetic import QUICK, record


def test_the_load_of_chosen_paths_leaves_out_those_that_every_token_takes() -> None:
    one = record(QUICK[1], 0).monitors[0]
    paths = {"paths": ("shared", "a", "b"), "load": (1.0, 0.25, 0.75), "always": ("shared",)}
    assert one.model_copy(update=paths).chosen_load == (0.25, 0.75)
    assert one.model_copy(update=paths | {"always": ()}).chosen_load == (1.0, 0.25, 0.75)
