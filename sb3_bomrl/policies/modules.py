"""The networks of SB3's policies, and which of them are plain perceptrons."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import nn

from sb3_bomrl.core.stacked_mlp import Layer
from sb3_bomrl.types import Observations

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu"}


class ActorModule(nn.Module):
    """
    Preprocessed observations -> the tensors that define the action distribution.

    It holds each part of the policy once. The policy itself has its features extractor under three names, and
    ``functional_call`` does not restore a module that it reaches under several.

    :param policy: an SB3 actor-critic policy
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.features_extractor = policy.pi_features_extractor
        self.mlp_extractor = policy.mlp_extractor
        self.action_net = policy.action_net
        self.log_std = policy.log_std if isinstance(policy.action_dist, DiagGaussianDistribution) else None

    def forward(self, observations: Observations) -> tuple[th.Tensor, ...]:
        """
        Compute the tensors that define the action distribution.

        :param observations: (n_samples, ...), or a dictionary of such
        :return: means or logits, (n_samples, n_outputs); for Gaussian policies also log σ, (action_dim,)
        """
        outputs = self.action_net(self.mlp_extractor.forward_actor(self.features_extractor(observations)))
        return (outputs,) if self.log_std is None else (outputs, self.log_std)


def find_layers(module: ActorModule, names: Mapping[int, str]) -> Sequence[Layer] | None:
    """
    Find the layers between features and action distribution, where they are linear with tanh or ReLU between them.

    :param module: the actor
    :param names: id of a parameter -> its name
    :return: layers, first to last; ``None`` where a part is of any other (sub)class
    """
    if type(module.mlp_extractor) is not MlpExtractor:
        return None
    layers: list[Layer] = []
    for part in (*module.mlp_extractor.policy_net, module.action_net):
        if type(part) is nn.Linear:
            bias = None if part.bias is None else names[id(part.bias)]
            layers.append(Layer(names[id(part.weight)], bias, "identity"))
        elif type(part) in _ACTIVATIONS and layers and layers[-1].activation == "identity":
            layers[-1] = layers[-1]._replace(activation=_ACTIVATIONS[type(part)])
        else:
            return None
    return layers


@contextmanager
def counting_units(module: nn.Module) -> Iterator[Counter[int]]:
    """
    Count the outputs of a module's parts inside this context.

    :param module: any module
    :return: a counter whose total is their number
    """
    counter: Counter[int] = Counter()

    def count(part: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, th.Tensor):
            counter[id(part)] += output.numel()

    handles = [part.register_forward_hook(count) for part in module.modules() if not list(part.children())]
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def all_differentiable(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """
    Let frozen parameters require gradients inside this context.

    :param parameters: any
    """
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def zero_observation(space: spaces.Space, device: th.device) -> Any:
    """
    Make a batch of one observation that is 0.

    :param space: observation space
    :param device: where the tensors lie
    :return: (1, *obs_shape), or a dictionary of such
    """
    if isinstance(space, spaces.Dict):
        return {key: zero_observation(part, device) for key, part in space.spaces.items()}
    return th.zeros((1, *(space.shape or ())), device=device)
