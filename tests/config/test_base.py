from bench.config.base import Part, added, hash_of


class Inner(Part):
    old: int = 1
    new: float | None = added(None, gt=0)


class Outer(Part):
    inner: Inner = Inner()
    many: tuple[Inner, ...] = (Inner(),)
    new: Inner = added(Inner())


def test_a_field_that_was_added_changes_no_key_until_it_is_set() -> None:
    assert Outer().canonical() == {"inner": {"old": 1}, "many": [{"old": 1}]}
    assert hash_of(Outer().canonical()) == hash_of({"many": [{"old": 1}], "inner": {"old": 1}})


def test_a_field_that_was_added_is_said_once_it_is_set() -> None:
    assert Outer(inner=Inner(new=2.0)).canonical()["inner"] == {"old": 1, "new": 2.0}
    assert Outer(many=(Inner(), Inner(new=2.0))).canonical()["many"] == [
        {"old": 1},
        {"old": 1, "new": 2.0},
    ]
    assert Outer(new=Inner(old=3)).canonical()["new"] == {"old": 3}


def test_the_canonical_form_gives_the_configuration_back() -> None:
    for part in (Outer(), Outer(new=Inner(old=3, new=0.5))):
        assert Outer.model_validate(part.canonical()) == part
