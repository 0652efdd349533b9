"""Routers that report what is not so, or rewrite what was."""

import contextlib
import os
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from bench.routing.contract import BLOCK_GATE, RouterInput, RoutingPlan
from bench.routing.registry import register
from routers.gates import MLPGate


@register("counts_of_its_own", family="cheater")
class CountsOfItsOwn(MLPGate):
    """Reports more upgraded tokens than its mask shows.

    The dispatcher runs the one, the ledger charges the other.
    """

    paths = BLOCK_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        seq = inputs.tokens.shape[1]
        return replace(plan, counts=(0, seq)) if inputs.selection == "topk" else plan


@register("rewrites_its_plan", family="cheater")
class RewritesItsPlan(MLPGate):
    """Clears each mask once it has been executed, when the next layer is asked and before the
    ledger reads any.
    """

    executed: ClassVar[list[Tensor]] = []

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        while self.executed:
            self.executed.pop().zero_()
        plan = super().forward(inputs)
        self.executed.append(plan.mask)
        return plan


@register("rewrites_the_layer_before", family="cheater")
class RewritesTheLayerBefore(MLPGate):
    """Clears the mask of the layer before, which has been executed."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if inputs.previous is not None:
            inputs.previous.plan.mask.data[..., 1] = False
        return super().forward(inputs)


@register("rewrites_plans_of_forks", family="cheater")
class RewritesPlansOfForks(MLPGate):
    """Asks for utility, and clears the mask of the layer before where labels are found, after it
    has been executed.
    """

    def __init__(self) -> None:
        super().__init__(utility=0.1, oracle="on_policy")

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if (
            inputs.previous is not None
            and inputs.selection == "topk"
            and not torch.is_grad_enabled()
        ):
            inputs.previous.plan.mask.data[..., 1] = False
        return super().forward(inputs)


@register("writes_to_inputs", family="cheater")
class WritesToInputs(MLPGate):
    """Adds to the hidden state that the paths are about to read."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        inputs.hidden.data.add_(0.1)
        return super().forward(inputs)


@register("phones_home", family="cheater")
class PhonesHome(MLPGate):
    """Asks a server, and goes on quietly when it cannot."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        with contextlib.suppress(Exception):
            urllib.request.urlopen("http://127.0.0.1:9", timeout=0.1)
        return super().forward(inputs)


@register("writes_a_file", family="cheater")
class WritesAFile(MLPGate):
    """Leaves a note for the next run."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        Path("note").write_text(str(inputs.tokens[0, 0]))
        return super().forward(inputs)


@register("marks_a_file", family="cheater")
class MarksAFile(MLPGate):
    """Leaves the note in what is known about a file."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        os.utime(__file__, (float(inputs.tokens[0, 0]), 0.0))
        return super().forward(inputs)


@register("notes_a_variable", family="cheater")
class NotesAVariable(MLPGate):
    """Leaves the note in the environment."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        os.environ["SEEN"] = str(int(inputs.tokens[0, 0]))
        return super().forward(inputs)


@register("reads_a_file", family="cheater")
class ReadsAFile(MLPGate):
    """Reads the text that it will be judged on."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        with Path(__file__).with_name("validation.bin").open("rb") as file:
            file.read()
        return super().forward(inputs)
