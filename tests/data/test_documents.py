from hypothesis import given
from hypothesis import strategies as st

from bench.data.documents import Document, truncate


@given(st.text(), st.integers(1, 50))
def test_truncate_keeps_a_prefix_within_the_limit(text: str, limit: int) -> None:
    short = truncate(text, limit)
    assert text.startswith(short)
    assert len(short.encode()) <= limit or short == text
    if len(text.encode()) <= limit:
        assert short == text


def test_truncate_ends_at_a_line_where_it_can() -> None:
    assert truncate("one\ntwo\nthree", 10) == "one\ntwo\n"
    assert truncate("abcdef", 4) == "abcd"
    assert truncate("aßß", 4) == "aß"


def test_the_digest_is_of_the_text_alone() -> None:
    assert Document("a", "x", "text").digest == Document("b", "y", "text").digest
    assert Document("a", "x", "text").digest != Document("a", "x", "text ").digest
