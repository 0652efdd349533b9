"""A plugin of one router, as a text that tests write into a file."""

PLUGIN = """
from bench.routing import FFN_GATE, Router
from bench.routing.registry import register

@register("from_a_file", family="tests", paper="arXiv:0000.00000")
class FromAFile(Router):
    paths = FFN_GATE

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width is {width}; it must be above 0.")
"""
