"""Messages of one line, whatever went wrong."""

import pytest

from bench.errors import UserError, let_through, located, shortened, told, unknown


class Unspeakable(Exception):
    """Its text raises another exception."""

    def __str__(self) -> str:
        raise RuntimeError("twice")


def test_a_message_is_one_line_however_it_was_written() -> None:
    assert str(UserError("two\nlines   and\tspaces ")) == "two lines and spaces"


def test_an_exception_is_told_with_its_class_though_its_text_may_fail() -> None:
    assert told(ValueError("a\n  b")) == "ValueError: a b"
    assert told(ValueError()) == "ValueError"
    assert told(Unspeakable()) == "Unspeakable"


def test_the_place_is_that_of_the_deepest_frame() -> None:
    def fail() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError) as caught:
        fail()
    line = fail.__code__.co_firstlineno + 1
    assert located(caught.value) == f"KeyError: 'k' (test_errors.py:{line})"


def test_an_interrupt_goes_on_and_nothing_else_does() -> None:
    let_through(SystemExit(3))
    with pytest.raises(KeyboardInterrupt):
        let_through(KeyboardInterrupt())


def test_a_long_value_is_cut() -> None:
    assert shortened("short") == "'short'"
    assert shortened("x" * 8, 10) == "'xxxxxxxx'"
    assert shortened("x" * 9, 10) == "'xxxxxxxxx..."


def test_an_unknown_name_is_answered_with_the_nearest_if_there_is_one() -> None:
    near = str(unknown("suite", "quik", ["small", "quick"], "Or write one."))
    assert (
        near == "Unknown suite 'quik'. Did you mean 'quick'? Available: quick, small. Or write one."
    )
    assert str(unknown("suite", "x", [])) == "Unknown suite 'x'. Available: none."


def test_a_name_is_no_guess_for_itself() -> None:
    error = str(unknown("router", "shared_fine", ["shared_fine", "mlp_gate"]))
    assert "Did you mean 'shared_fine'" not in error
