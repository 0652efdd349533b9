"""Read marks back from a drawn figure."""

import xml.etree.ElementTree as ET

from bench.board.drawing import Figure


def titled(figure: Figure) -> dict[str, ET.Element]:
    """Hover title -> the group of its mark, the last one of a title."""
    groups = figure.element.iter("g")
    return {title: group for group in groups if (title := group.findtext("title")) is not None}


def centre(group: ET.Element) -> float:
    """Where along x a marker lies."""
    use = next(group.iter("use"))
    return float(use.attrib["x"])
