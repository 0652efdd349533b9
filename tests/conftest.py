"""What every test runs under: one thread, shapes checked, reproducible examples."""

import os
import sys
from types import ModuleType

# Before torch is imported anywhere: pytest-xdist fills the cores with processes.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook


def check_shapes() -> None:
    """Execute the annotations of bench and routers, shapes included; an int serves as a float, as
    everywhere in typing.

    The hook wants a checker that it can import by name, hence the module.
    """
    checker = ModuleType("annotation_checker")
    vars(checker)["check"] = beartype(conf=BeartypeConf(is_pep484_tower=True))
    sys.modules[checker.__name__] = checker
    install_import_hook(["bench", "routers"], f"{checker.__name__}.check")


# TOKEN_ROUTING_BENCH_CHECK_SHAPES=0 shows what runs without.
if os.environ.get("TOKEN_ROUTING_BENCH_CHECK_SHAPES", "1") != "0":
    check_shapes()

# Shared machines make deadlines flaky; CI must fail for the change, not for the draw.
hypothesis.settings.register_profile("bench", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("bench")
