"""What every test runs under: one thread, no display, shapes checked, reproducible examples."""

import os

# Before torch is imported anywhere: pytest-xdist fills the cores with processes.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
from jaxtyping import install_import_hook

# Shape annotations of bench and routers are executed; TOKEN_ROUTING_BENCH_CHECK_SHAPES=0 shows what runs without.
if os.environ.get("TOKEN_ROUTING_BENCH_CHECK_SHAPES", "1") != "0":
    install_import_hook(["bench", "routers"], "beartype.beartype")

# Shared machines make deadlines flaky; CI must fail for the change, not for the draw.
hypothesis.settings.register_profile("bench", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("bench")
