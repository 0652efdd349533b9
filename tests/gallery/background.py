"""A router whose thread is started when its file is imported, before anyone watches."""

import queue
import threading
import time

from torch import Tensor

from bench.routing.contract import RouterInput, RoutingPlan
from bench.routing.registry import register
from routers.gates import MLPGate

ORDERS: queue.SimpleQueue[Tensor] = queue.SimpleQueue()


def _labour() -> None:
    while True:
        order = ORDERS.get()
        for _ in range(2):
            order = (order @ order.mT @ order).tanh()


threading.Thread(target=_labour, daemon=True).start()


@register("work_in_background", family="cheater")
class InBackground(MLPGate):
    """Hands its inputs to a thread that is there already."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        ORDERS.put(inputs.hidden.detach().flatten(0, 1))
        while not ORDERS.empty():
            time.sleep(0.0005)
        return super().forward(inputs)
