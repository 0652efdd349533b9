"""Export everything that a router may import from the bench.

It is the contract, ways to choose, estimators, losses and registration:

    from bench.routing import FFN_GATE, Router, RouterInput, RoutingPlan, losses, register
"""

from bench.rng import hash_uniform
from bench.routing import estimators, losses
from bench.routing.balance import BalanceOption
from bench.routing.capacity import gate_plan, tokens_kept, top_k_mask, upgrade
from bench.routing.contract import (
    AuxLoss,
    LayerTrace,
    Made,
    OracleRequest,
    Policy,
    Router,
    RouterInput,
    RouterNoise,
    RouterSpec,
    RoutingPlan,
    Selection,
    TrainStatistics,
)
from bench.routing.depth import Causal, TopTokens
from bench.routing.learned_gate import Gate, GateEstimator
from bench.routing.paths import BLOCK_GATE, FFN_GATE, Paths, Site, experts
from bench.routing.registry import register
from bench.routing.scores import biased, hash_noise, perturb, top_experts
from bench.routing.token_choice import Scores, ThresholdChoice, TokenChoice

__all__ = [
    "BLOCK_GATE",
    "FFN_GATE",
    "AuxLoss",
    "BalanceOption",
    "Causal",
    "Gate",
    "GateEstimator",
    "LayerTrace",
    "Made",
    "OracleRequest",
    "Paths",
    "Policy",
    "Router",
    "RouterInput",
    "RouterNoise",
    "RouterSpec",
    "RoutingPlan",
    "Scores",
    "Selection",
    "Site",
    "ThresholdChoice",
    "TokenChoice",
    "TopTokens",
    "TrainStatistics",
    "biased",
    "estimators",
    "experts",
    "gate_plan",
    "hash_noise",
    "hash_uniform",
    "losses",
    "perturb",
    "register",
    "tokens_kept",
    "top_experts",
    "top_k_mask",
    "upgrade",
]
