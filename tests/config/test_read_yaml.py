"""Any text as YAML gives a value, or one line that names its fault."""

from pathlib import Path

import pytest

from bench.config.read_yaml import read_declaration, read_value
from bench.errors import UserError

WRONG = [
    ("2024-99-99", "month must be in 1..12"),
    ("[" * 5000, "nested too deeply"),
    ("{a: " * 3000, "nested too deeply"),
    ("9" * 5000, "limit"),
    ("0x" + "f" * 5000, "limit"),
    ("!!bool foo", "does not fit its tag (KeyError"),
    ("!!int ''", "does not fit its tag (IndexError"),
    ("!!timestamp foo", "does not fit its tag (AttributeError"),
    ("[1", "expected"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=lambda text: text[:20])
def test_a_value_that_yaml_cannot_read_is_refused_in_one_short_line(text: str, said: str) -> None:
    with pytest.raises(UserError) as told:
        read_value(f"name={text}")
    message = str(told.value)
    assert said in message and "--set " in message and "Give a number" in message
    assert "\n" not in message and len(message) < 800


@pytest.mark.parametrize(("text", "said"), WRONG, ids=lambda text: text[:20])
def test_a_file_that_yaml_cannot_read_is_refused_by_name_in_one_short_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"name: {text}", encoding="utf-8")
    with pytest.raises(UserError) as told:
        read_declaration("suite", str(path), "suites", "bench/suites/quick.yaml")
    message = str(told.value)
    assert said in message and repr(str(path)) in message and "bench/suites/quick.yaml" in message
    assert "\n" not in message and len(message) < 800
    assert path.read_text(encoding="utf-8") == f"name: {text}"


def test_sound_values_are_read() -> None:
    assert [
        read_value(f"a={text}")
        for text in ("8", "0.5", "true", "word", "[1, 2]", "'2024-99-99'", "")
    ] == [*(8, 0.5, True, "word", [1, 2], "2024-99-99", None)]


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("name: a\ntrain: {x: 1}\nname: b\n", "'name'", (1, 3)),
        ("rows:\n  - name: a\n    options: {}\n    options: {k: 1}\n", "'options'", (3, 4)),
        ("? 1\n: a\n? 1\n: b\n", "'1'", (1, 3)),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(
    tmp_path: Path, text: str, key: str, lines: tuple[int, int]
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as told:
        read_declaration("suite", str(path), "suites", "bench/suites/quick.yaml")
    assert f"the key {key} occurs twice, on lines {lines[0]} and {lines[1]}" in str(told.value)


def test_a_key_may_override_a_merged_one_and_stand_again_elsewhere() -> None:
    text = "{base: &b {k: 1}, own: {<<: *b, k: 2}, other: {k: 3}}"
    assert read_value(f"x={text}") == {"base": {"k": 1}, "own": {"k": 2}, "other": {"k": 3}}
