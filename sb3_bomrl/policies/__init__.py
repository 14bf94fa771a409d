"""Meta-policies: SB3's actor-critic policies as functions of their parameters, and two parts of our own."""

from sb3_bomrl.policies.extractors import NormalizedFlattenExtractor
from sb3_bomrl.policies.tabular import TabularPolicy

__all__ = ["NormalizedFlattenExtractor", "TabularPolicy"]
