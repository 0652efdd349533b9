"""A helper of a plugin, with room for what it must not remember."""

SEEN: dict[int, int] = {}
