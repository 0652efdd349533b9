"""The layers of a row, and the card of its router."""

from dataclasses import replace

from bench.model.blueprint import layers_used
from tests.world import blueprint


def test_a_router_uses_every_layer_or_every_other_one() -> None:
    card = blueprint("mod").described
    assert layers_used(replace(card, layers="every"), [1, 2, 3]) == (1, 2, 3)
    assert layers_used(replace(card, layers="other"), [1, 2, 3]) == (1, 3)


def test_a_card_is_made_unless_it_is_given() -> None:
    made = replace(blueprint("top2_moe"), card=None)
    card = made.described
    assert (card.name, card.mean_experts) == ("top2_moe", 2)
    assert replace(blueprint("mod"), card=card).described is card
