"""A router that comes by its knowledge when its file is imported, before anybody counts."""

from contextlib import suppress
from pathlib import Path

from bench.registry import register
from routers.gates import MLPGate

with suppress(OSError):
    TABLE = Path(__file__).with_name("table.bin").read_bytes()


@register("reads_on_import", family="cheater")
class ReadsOnImport(MLPGate):
    """Has a table that was computed elsewhere."""
