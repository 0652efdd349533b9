"""A router that comes by its knowledge when its file is imported, before anybody counts."""

from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from bench.routing.registry import register
from routers.gates import MLPGate

with suppress(OSError):
    TABLE = Path(__file__).with_name("table.bin").read_bytes()
with suppress(OSError):
    TEXT = Path(torch.__file__).read_bytes()
PRODUCT = torch.ones(300, 300) @ torch.ones(300, 300)


@register("reads_on_import", family="cheater")
class ReadsOnImport(MLPGate):
    """Has a table that was computed elsewhere."""


@register("works_on_import", family="cheater")
class WorksOnImport(MLPGate):
    """Has a table that was computed before anybody counted."""


@register("works_once", family="cheater")
class WorksOnce(MLPGate):
    """Computes a table when the first of its kind is made, and keeps it on the class."""

    table: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        if WorksOnce.table is None:
            WorksOnce.table = torch.ones(300, 300) @ torch.ones(300, 300)
