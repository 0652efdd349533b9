"""Prove on the trained weights that a router decides by its token and earlier ones alone.

A suffix trial replaces the tokens after a cut and compares everything up to the cut. Other trials
replace the other sequences of the batch. All paths run on all tokens, masked, so both passes make
products of the same shapes, and the results of a causal router are equal to the last bit. Some
trials must change shapes: batch size, order, and prefixes as in decoding. Their products are made
in float64 and rounded, so that rounding turns no decision.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from bench.backbone.decoder import Decoder, device_of
from bench.backbone.merge import merge_by_token
from bench.backbone.passes import autocast, make_pass
from bench.backbone.token_losses import token_losses
from bench.conformance.unchanged import state_sums
from bench.data import Windows
from bench.evaluation.evaluate import window_tensors
from bench.evaluation.headline import Visited, knobs_of, set_knobs
from bench.flops.prices import MATRIX, operation_name
from bench.record import Causality
from bench.rng import generator
from bench.routing.contract import LayerTrace

LEAK_RATE = 0.02
TRIALS = 256
"""Suffix trials at B. They find a leak that shows in 2 % of trials with 99.4 % probability."""
SHAPES, DECODED = 32, 8
"""Number of sequences that run in batches of other sizes, and that run as prefixes."""
SHORT = LONG = 16
"""Prefixes: every length up to SHORT, where windows begin, and LONG of any length."""
TOLERANCE = 1e-4
"""Largest relative difference between passes of other shapes.

It is relative to the value, or to the mean magnitude of such values if that is above 1: a loss of
100 rests on logits of that size.
"""

Text = Int[Tensor, "batch seq_and_target"]
Seen = list[tuple[str, Tensor]]
"""Results of a pass by name, each `[batch, seq, _]`: of every routed site, and the losses."""


class Offence(Exception):
    """A broken rule. The text names the trial, the layer, the sequence and the position."""


@torch.no_grad()
def prove(
    decoder: Decoder,
    windows: Windows,
    visited: Sequence[Visited],
    seed: int,
    batch_size: int,
    dtype: torch.dtype,
) -> Causality:
    """Search the trained model for dependence on later tokens, other sequences or earlier passes.

    At B there are `TRIALS` suffix trials, in float32 and in the precision of the run. The headline
    is interpolated from the other settings of the sweep, so each of them gets a batch of trials.

    Args:
        decoder: the model. Its knobs are restored at the end.
        windows: the evaluated validation windows.
        visited: settings of the official evaluation with their losses, B last.
        seed: seed of the cell; it fixes the sequences, cuts and endings of the trials.
        batch_size: batch size of the official evaluation.
        dtype: precision of the official evaluation.
    """
    proof = Proof(decoder, windows, generator(seed, "causality"), batch_size)
    found, state = knobs_of(decoder), state_sums(decoder)
    try:
        # The setting at B gets the full number of trials, because the headline is mostly its loss.
        *beside, at_budget = visited
        proof.repeat_official(at_budget, dtype)
        for precision in dict.fromkeys((torch.float32, dtype)):
            proof.replace_text(TRIALS, precision)
        proof.change_shapes()
        for setting in beside:
            proof.repeat_official(setting, dtype)
            proof.replace_text(min(batch_size, TRIALS), dtype, " at a knob setting near B")
        # All trials together must leave no trace in parameters or buffers.
        if state_sums(decoder) != state:
            raise Offence("State: a parameter or buffer changed during evaluation.")
    except Offence as offence:
        return Causality(passed=False, trials=TRIALS, detail=str(offence))
    finally:
        set_knobs(decoder, found)
    power = f"in {LEAK_RATE:.0%} of trials with {1 - (1 - LEAK_RATE) ** TRIALS:.1%} probability"
    said = f"{TRIALS} suffix trials find a leak {power}"
    return Causality(passed=True, trials=TRIALS, detail=said)


class Proof:
    """The model under test and the text of the trials: `text`, and `changed` after `cuts`.

    Each trial has its own sequence: a leak that shows after rare openings would escape all trials
    that share one opening. Each sequence is spliced from windows, so no router has seen it.
    """

    def __init__(
        self, decoder: Decoder, windows: Windows, noise: torch.Generator, batch_size: int
    ) -> None:
        self.decoder, self.noise, self.batch_size = decoder, noise, batch_size
        self.windows, self.window_tags = window_tensors(windows, device_of(decoder))
        self.device, length = self.windows.device, self.windows.shape[1]
        (heads, rows), (tails, _), (endings, _) = (self._turned_windows() for _ in range(3))
        place = torch.arange(length, device=self.device)
        # The head of one window and the tail of another, joined at a random seam.
        seam = torch.randint(1, length, (TRIALS, 1), generator=noise).to(self.device)
        self.text = torch.where(place < seam, heads, tails)
        self.tags = self.window_tags[rows]
        # The last input is at `length - 2`, so a later cut would change no input.
        self.cuts = self._draw(length - 2, TRIALS)
        self.cuts[:2] = torch.tensor([0, length - 3])
        cut = self.cuts.unsqueeze(1)
        # The first token after the cut must differ, or a look one token ahead would stay hidden.
        same = (place == cut + 1) & (endings == self.text)
        endings = torch.where(same, (endings + 1) % decoder.config.vocab_size, endings)
        self.changed = torch.where(place > cut, endings, self.text)

    def repeat_official(self, setting: Visited, dtype: torch.dtype) -> None:
        """Run the first batch of an official evaluation again, with dispatched paths as there."""
        set_knobs(self.decoder, setting.knobs)
        text, tags = (part[: self.batch_size] for part in (self.windows, self.window_tags))
        with autocast(self.device, dtype):
            nats = _losses(self.decoder(make_pass(text[:, :-1], tags)), text[:, 1:])
        before = torch.from_numpy(setting.nats[: self.batch_size]).to(nats).unsqueeze(-1)
        seen, again = ([("the loss", data)] for data in (before, nats))
        _compare("Official evaluation", seen, again, torch.arange(len(text)))

    def replace_text(self, count: int, dtype: torch.dtype, where: str = "") -> None:
        """Replace other sequences of the batch, then endings. No other bit may change."""
        where += "" if dtype is torch.float32 else f" in {str(dtype).removeprefix('torch.')}"
        place = torch.arange(self.text.shape[1] - 1, device=self.device)
        for rows in torch.arange(count, device=self.device).split(self.batch_size):
            with autocast(self.device, dtype):
                base = self._look(rows, self.text[rows])
                stays = self._draw(len(rows), len(rows)).unsqueeze(1) < len(rows) / 2
                # The first place in the batch is the likeliest to be special, so it is replaced.
                stays[0] = False
                mates = torch.where(stays, self.text[rows], self.text.roll(1, 0)[rows])
                _compare(f"Batch mates{where}", base, self._look(rows, mates), rows, stays)
                kept, changed = place <= self.cuts[rows].unsqueeze(1), self.changed[rows]
                _compare(f"Suffix trial{where}", base, self._look(rows, changed), rows, kept)

    def change_shapes(self) -> None:
        """Run sequences in another order, in batches of other sizes, and as prefixes."""
        rows = torch.arange(min(SHAPES, self.batch_size), device=self.device)
        seq = self.text.shape[1] - 1
        with ExitStack() as stack:
            # Only the CPU's fused attention has float64, and compiled parts would hide products.
            stack.enter_context(sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]))
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(PreciseProducts())
            base = self._look(rows, self.text[rows])
            # All sequences in another order, then in batches of five, then single ones.
            order = self._draw(len(rows), len(rows))
            for size, tried in ((len(rows), order), (5, order), (1, order[:4])):
                for part in tried.split(size):
                    self._compare_shape(f"Batch size {size}", base, part, seq)
            for length in [*range(1, min(seq, SHORT) + 1), *(1 + self._draw(seq, LONG)).tolist()]:
                self._compare_shape("Decoding", base, rows[:DECODED], length)

    def _compare_shape(self, name: str, base: Seen, rows: Tensor, length: int) -> None:
        """Compare the first `length` tokens of some sequences with the base pass."""
        expected = [(what, data[rows, :length]) for what, data in base]
        seen = self._look(rows, self.text[rows, : length + 1])
        _compare(name, expected, seen, rows, tolerance=TOLERANCE)

    def _look(self, rows: Int[Tensor, " batch"], text: Text) -> Seen:
        """Run texts in place of `rows`, with all paths on all tokens.

        Losses use the original targets: a router that sees the next token would predict it.
        """
        length = text.shape[1] - 1
        run = make_pass(text[:, :-1], self.tags[rows, :length], reference=True)
        # The targets stay those of the original text, also when the inputs are replaced.
        nats = _losses(self.decoder(run), self.text[rows, 1 : length + 1])
        seen: Seen = []
        # Plans, weights, scores and updates of every site, so that the first difference is named.
        for trace in run.traces:
            layer, scores = f"of layer {trace.layer}", trace.plan.scores
            seen += [(f"the plan {layer}", trace.plan.mask), (f"a weight {layer}", _weights(trace))]
            seen += [(f"a score {layer}", scores)] if scores is not None else []
            seen.append((f"the update {layer}", trace.update))
        return [*seen, ("the loss", nats)]

    def _turned_windows(self) -> tuple[Text, Int[Tensor, " trial"]]:
        """Return a window for each trial, rotated by some tokens, and its index."""
        rows, length = self._draw(len(self.windows), TRIALS), self.windows.shape[1]
        turn = self._draw(length, TRIALS).unsqueeze(1)
        index = (torch.arange(length, device=self.device) + turn) % length
        return self.windows[rows].gather(1, index), rows

    def _draw(self, limit: int, count: int) -> Int[Tensor, " count"]:
        """Draw `count` numbers below `limit` in random order, each as often as the others."""
        rounds = [torch.randperm(limit, generator=self.noise) for _ in range(-(-count // limit))]
        return torch.cat(rounds)[:count].to(self.device)


class PreciseProducts(TorchDispatchMode):
    """Make products of float32 in float64 and round them, so that shapes change almost no bit."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation."""
        given = (args, kwargs or {})
        # Attention and convolutions are products too; `MATRIX` lists them all.
        if operation_name(func) in MATRIX and args[0].dtype is torch.float32:
            given = tree_map_only(
                Tensor, lambda t: t.double() if t.is_floating_point() else t, given
            )
            out = func(*given[0], **given[1])
            return tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, out)
        return func(*given[0], **given[1])


def _losses(
    logits: Float[Tensor, "batch seq vocab"], targets: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq 1"]:
    """Return the loss of each target, as `evaluate` computes it."""
    nats = token_losses(logits, targets)
    if not nats.isfinite().all():
        raise Offence("Predictions: a loss is NaN or infinite.")
    return nats.unsqueeze(-1)


def _weights(trace: LayerTrace) -> Float[Tensor, "batch seq path"]:
    """Return the factor on each path's output: merging weights, weights, or 1 if it ran."""
    plan = trace.plan
    if plan.merge is not None and trace.paths.segment is not None:
        return merge_by_token(plan, trace.paths.segment)
    return plan.mask.float() if plan.weight is None else plan.weight.where(plan.mask, 0)


def _compare(
    name: str,
    expected: Seen,
    seen: Seen,
    rows: Int[Tensor, " batch"],
    where: Bool[Tensor, "batch _seq"] | bool = True,
    tolerance: float = 0.0,
) -> None:
    """Raise an `Offence` at the first result that differs within `where`."""
    for (what, one), (_, other) in zip(expected, seen, strict=True):
        one, other = one.double(), other.double()
        # With tolerance 0 the results must be equal to the last bit.
        size = max(1.0, float(one.abs().nan_to_num(posinf=0.0).mean()))
        close = torch.isclose(one, other, rtol=tolerance, atol=tolerance * size, equal_nan=True)
        differs = ~close.all(-1) & where
        if differs.any():
            row, position = differs.nonzero()[0].tolist()
            place = f"sequence {int(rows[row])}, position {position}"
            raise Offence(f"{name}: {what} differs at {place}.")
