"""Meta-policies: SB3's actor-critic policies as functions of their parameters, and parts of our own."""

from sb3_bomrl.policies.extractors import NormalizedCombinedExtractor, NormalizedFlattenExtractor
from sb3_bomrl.policies.normalized import NormalizedMlpPolicy, NormalizedMultiInputPolicy
from sb3_bomrl.policies.tabular import TabularPolicy

__all__ = [
    "NormalizedCombinedExtractor",
    "NormalizedFlattenExtractor",
    "NormalizedMlpPolicy",
    "NormalizedMultiInputPolicy",
    "TabularPolicy",
]
