"""Exact BO-MRL in finite MDPs."""

from sb3_bomrl.tabular.adaptation import adapt, adaptation_path, lower_level_objective
from sb3_bomrl.tabular.baselines import (
    MAMLExact,
    SharedPolicyExact,
    mean_optimal_policy,
    policy_gradient_step,
    random_logits,
)
from sb3_bomrl.tabular.bomrl_exact import BOMRLExact, ExactMetaLearner
from sb3_bomrl.tabular.lakes import FAMILIES, LAKE_GAMMA, Layout, lake_mdp, sample_layouts
from sb3_bomrl.tabular.mdp import FiniteMDP
from sb3_bomrl.tabular.solvers import expected_return, optimal_policy, policy_value, state_visitation

__all__ = [
    "FAMILIES",
    "LAKE_GAMMA",
    "BOMRLExact",
    "ExactMetaLearner",
    "FiniteMDP",
    "Layout",
    "MAMLExact",
    "SharedPolicyExact",
    "adapt",
    "adaptation_path",
    "expected_return",
    "lake_mdp",
    "lower_level_objective",
    "mean_optimal_policy",
    "optimal_policy",
    "policy_gradient_step",
    "policy_value",
    "random_logits",
    "sample_layouts",
    "state_visitation",
]
