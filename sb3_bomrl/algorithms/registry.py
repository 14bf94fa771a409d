"""The meta-algorithms by name."""

from sb3_bomrl.algorithms.bomrl import BOMRL
from sb3_bomrl.algorithms.emaml import EMAML
from sb3_bomrl.algorithms.maml import FOMAML, MAML
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.algorithms.promp import ProMP
from sb3_bomrl.algorithms.reptile import Reptile

REGISTRY: dict[str, type[MetaAlgorithm]] = {
    "bomrl": BOMRL,
    "maml": MAML,
    "fomaml": FOMAML,
    "emaml": EMAML,
    "promp": ProMP,
    "reptile": Reptile,
}
"""By the name in lower case."""
