"""The router under examination: shared parts, drawn parts, and the effect of the seed."""

import numpy as np
import torch

from bench.conformance.life import content_digest
from bench.conformance.subject import BATCH_SIZE, NUM_DOMAINS, SEQ_LEN, Subject
from bench.routing.load_routers import find


def test_right_paths_are_paths_and_a_few_tokens_have_none() -> None:
    for name in ("mlp_gate", "top2_moe"):
        subject = Subject(find(name))
        right = subject.right_paths(np.arange(64))
        paths = len(subject.probe.paths.names)
        assert set(right.tolist()) <= {-1, *range(paths)} and right.max() == paths - 1
        assert np.flatnonzero(right < 0).tolist() == [0, 8, 16, 24, 32, 40, 48, 56]


def test_the_seed_alone_decides_weights_and_text() -> None:
    def seen(seed: int) -> list[str]:
        torch.rand(seed + 1)
        subject = Subject(find("mlp_gate"), seed=seed)
        parts = subject.build().state_dict(), subject.split.tokens, subject.batch(3)
        return [content_digest(part) for part in parts]

    first, again, other = seen(0), seen(0), seen(1)
    assert first == again and all(a != b for a, b in zip(first, other, strict=True))


def test_a_router_is_built_without_a_draw_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    Subject(find("mlp_gate")).build()
    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_have_noise_in_training_alone_and_start_afresh() -> None:
    subject = Subject(find("mlp_gate"))
    for inputs in subject.inputs("causal"):
        assert inputs.generator is None and subject.fresh(inputs) is inputs
        assert inputs.tokens.shape == (BATCH_SIZE, SEQ_LEN)
        assert int(inputs.tokens.max()) < 64 and inputs.hidden.shape[-1] == 32
    (drawn, again) = (subject.fresh(subject.inputs("topk")[0]).generator for _ in range(2))
    assert drawn is not None and again is not None
    assert torch.equal(torch.rand(4, generator=drawn), torch.rand(4, generator=again))
    assert int(subject.batch(64)[1].max()) == NUM_DOMAINS - 1
