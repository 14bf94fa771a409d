"""The actor as a function of stacked parameters, against SB3's own policies one task at a time."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from sb3_bomrl.core.params import stack
from sb3_bomrl.policies import NormalizedFlattenExtractor, TabularPolicy
from sb3_bomrl.policies.actor import Actor
from sb3_bomrl.policies.distributions import MultiCategorical, mode

N_TASKS, N_SAMPLES = 3, 4
BOX = spaces.Box(-2.0, 2.0, (5,))
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
ACTIONS = {
    "box": spaces.Box(-1.0, 1.0, (2,)),
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([2, 3, 4]),
    "multi_binary": spaces.MultiBinary(3),
}
OBSERVATIONS = {
    "box": BOX,
    "matrix": spaces.Box(-1.0, 1.0, (2, 3)),
    "discrete": spaces.Discrete(6),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(4),
    "image": IMAGE,
    "dict": spaces.Dict({"vector": BOX, "number": spaces.Discrete(3), "picture": IMAGE}),
}
CLASSES = {"image": ActorCriticCnnPolicy, "dict": MultiInputActorCriticPolicy}


def make(observation: str, action: str, cls: type[ActorCriticPolicy] | None = None, **kwargs: Any) -> ActorCriticPolicy:
    th.manual_seed(0)
    cls = cls or CLASSES.get(observation, ActorCriticPolicy)
    if cls is not TabularPolicy:
        kwargs.setdefault("net_arch", [8, 8])
    if observation == "image":
        kwargs.setdefault("features_extractor_kwargs", {"features_dim": 16})
    if observation == "dict":
        kwargs.setdefault("features_extractor_kwargs", {"cnn_output_dim": 16})
    policy = cls(OBSERVATIONS[observation], ACTIONS[action], lambda _: 1e-3, **kwargs)
    policy.set_training_mode(False)
    return policy


def observe(space: spaces.Space, n: int = N_TASKS * N_SAMPLES) -> Any:
    """n observations as SB3 hands them to a policy."""
    space.seed(3)
    samples = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: th.as_tensor(np.stack([s[key] for s in samples])) for key in space.spaces}
    return th.as_tensor(np.stack(samples))


def by_task(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: by_task(value) for key, value in x.items()}
    return x.reshape(N_TASKS, N_SAMPLES, *x.shape[1:])


def take(x: Any, task: int) -> Any:
    return {k: v[task] for k, v in x.items()} if isinstance(x, dict) else x[task]


def different(actor: Actor) -> dict[str, th.Tensor]:
    """Stacked parameters, other ones for every task."""
    generator = th.Generator().manual_seed(1)
    params = stack(actor.params(), N_TASKS)
    return {k: v + 0.2 * th.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in params.items()}


def tensors(distribution: Distribution) -> list[th.Tensor]:
    if isinstance(distribution, MultiCategorical):
        return [c.logits for c in distribution.components]
    base = distribution.base_dist if isinstance(distribution, Independent) else distribution
    return [base.mean, base.stddev] if isinstance(base, Normal) else [base.logits]


def sb3_tensors(policy: ActorCriticPolicy, observations: Any) -> list[th.Tensor]:
    distribution = policy.get_distribution(observations).distribution
    if isinstance(distribution, list):
        return [c.logits for c in distribution]
    return [distribution.mean, distribution.stddev] if isinstance(distribution, Normal) else [distribution.logits]


def check_against_sb3(policy: ActorCriticPolicy, tolerance: float = 1e-5) -> None:
    """Distribution, log-probability and mode of every task equal those of a copy that holds the task's parameters."""
    actor = Actor(policy)
    observations = by_task(observe(policy.observation_space))
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    params = different(actor)
    with th.no_grad():
        together = actor(params, actor.preprocess(observations))
        greedy = mode(together)
    assert together.batch_shape == (N_TASKS, N_SAMPLES)
    assert greedy.shape[2:] == policy.action_space.shape
    log_probs = together.log_prob(greedy)
    twin = copy.deepcopy(policy)
    for task in range(N_TASKS):
        Actor(twin).load_params({name: value[task] for name, value in params.items()})
        own = take(observations, task)
        with th.no_grad():
            expected = sb3_tensors(twin, own)
            actions = twin._predict(own, deterministic=True)
            sb3_log_probs = twin.get_distribution(own).log_prob(actions)
        for got, wanted in zip(tensors(together), expected, strict=True):
            assert th.allclose(got[task], wanted, atol=tolerance, rtol=tolerance)
        assert th.allclose(greedy[task].double(), actions.double(), atol=tolerance)
        assert th.allclose(log_probs[task], sb3_log_probs, atol=10 * tolerance, rtol=tolerance)
    assert all(th.equal(before[name], value) for name, value in policy.state_dict().items())


@pytest.mark.parametrize("action", list(ACTIONS))
def test_distributions_of_every_action_space_equal_sb3s(action):
    check_against_sb3(make("box", action))


@pytest.mark.parametrize("observation", [name for name in OBSERVATIONS if name != "box"])
def test_distributions_of_every_observation_space_equal_sb3s(observation):
    check_against_sb3(make(observation, "box"))


@pytest.mark.parametrize("observation", ["box", "image"])
def test_separate_feature_extractors(observation):
    policy = make(observation, "discrete", share_features_extractor=False)
    check_against_sb3(policy)
    if observation == "image":
        assert not any(name.startswith("vf_") for name in Actor(policy).names)


def test_shared_layers_and_other_activations():
    check_against_sb3(make("box", "box", net_arch={"pi": [6], "vf": [7]}, activation_fn=th.nn.ReLU))


def test_normalized_observations():
    policy = make("box", "box", features_extractor_class=NormalizedFlattenExtractor)
    policy.features_extractor.update(3 + 2 * observe(BOX))
    check_against_sb3(policy)


def test_table():
    check_against_sb3(make("discrete", "discrete", TabularPolicy))


@pytest.mark.parametrize("observation", ["box", "dict"])
def test_double_precision(observation):
    policy = make(observation, "box").double()
    actor = Actor(policy)
    observations = actor.preprocess(by_task(observe(policy.observation_space)))
    params = {name: value.requires_grad_() for name, value in different(actor).items()}
    distribution = actor(params, observations)
    assert all(x.dtype == th.float64 for x in tensors(distribution))
    gradient = th.autograd.grad(distribution.entropy().sum(), list(params.values()), materialize_grads=True)
    assert all(g.dtype == th.float64 for g in gradient)
    exact = {name: value.detach().float().double() for name, value in params.items()}
    single = {name: value.float() for name, value in exact.items()}
    low = Actor(make(observation, "box"))
    rounded = low(single, low.preprocess(by_task(observe(policy.observation_space))))
    assert th.allclose(tensors(actor(exact, observations))[0], tensors(rounded)[0].double(), atol=1e-5)


def test_names_are_those_of_the_actor():
    assert set(Actor(make("box", "box")).names) == {
        "log_std",
        "mlp_extractor.policy_net.0.weight",
        "mlp_extractor.policy_net.0.bias",
        "mlp_extractor.policy_net.2.weight",
        "mlp_extractor.policy_net.2.bias",
        "action_net.weight",
        "action_net.bias",
    }
    assert Actor(make("discrete", "discrete", TabularPolicy)).names == ("action_net.weight",)
    convolutional = Actor(make("image", "discrete")).names
    assert {name.split(".")[0] for name in convolutional} == {"features_extractor", "mlp_extractor", "action_net"}
    assert not any("value" in name for name in convolutional)
    assert any("extractors.picture" in name for name in Actor(make("dict", "discrete")).names)


@pytest.mark.parametrize("observation", ["box", "image", "dict"])
def test_the_names_are_complete_and_without_surplus(observation):
    """Changing any parameter of the list changes the distribution; changing all others does not."""
    policy = make(observation, "box")
    actor, observations = Actor(policy), observe(policy.observation_space)
    with th.no_grad():
        reference = sb3_tensors(policy, observations)
        for name, value in policy.named_parameters():
            if name not in actor.names:
                value.add_(th.randn_like(value))
        assert all(map(th.equal, reference, sb3_tensors(policy, observations)))
        for name, value in policy.named_parameters():
            if name in actor.names:
                value.add_(0.02 * th.randn_like(value))
                changed = sb3_tensors(policy, observations)
                assert not all(map(th.equal, reference, changed)), name
                reference = changed


def test_params_are_copies_and_can_be_loaded():
    policy = make("box", "box")
    actor = Actor(policy)
    params = actor.params()
    assert list(params) == list(actor.names)
    critic = policy.value_net.weight.clone()
    params["log_std"] += 1.0
    assert th.equal(policy.log_std, th.zeros(2))
    actor.load_params(params)
    assert th.equal(policy.log_std, th.ones(2))
    assert policy.log_std.requires_grad
    assert th.equal(policy.value_net.weight, critic)


def test_gradients_reach_every_tasks_parameters_only():
    policy = make("box", "box")
    actor = Actor(policy)
    params = {name: value.requires_grad_() for name, value in different(actor).items()}
    observations = actor.preprocess(by_task(observe(BOX)))
    actor(params, observations).log_prob(th.zeros(N_TASKS, N_SAMPLES, 2))[1].sum().backward()
    for name, value in params.items():
        assert value.grad is not None, name
        assert value.grad[1].abs().sum() > 0
        assert (value.grad[[0, 2]] == 0).all()
    assert all(value.grad is None for value in policy.parameters())


@pytest.mark.parametrize("observation", ["box", "image"])
def test_second_derivatives_equal_those_of_the_policy(observation):
    """A Fisher-vector product, against SB3's modules called in the ordinary way."""
    policy = make(observation, "discrete").double()
    actor, raw = Actor(policy), by_task(observe(policy.observation_space))
    vectors = different(actor)

    def product(leaves: list[th.Tensor], entropy: th.Tensor, vector: list[th.Tensor]) -> list[th.Tensor]:
        first = th.autograd.grad(entropy, leaves, create_graph=True)
        return th.autograd.grad(sum((g * v).sum() for g, v in zip(first, vector, strict=True)), leaves)

    params = {k: v.requires_grad_() for k, v in stack(actor.params(), N_TASKS).items()}
    entropy = actor(params, actor.preprocess(raw)).entropy().sum()
    got = product(list(params.values()), entropy, list(vectors.values()))
    named = dict(policy.named_parameters())
    leaves = [named[name] for name in actor.names]
    for task in range(N_TASKS):
        features = policy.pi_features_extractor(actor.preprocess(raw)[task])
        logits = policy.action_net(policy.mlp_extractor.forward_actor(features))
        plain = th.distributions.Categorical(logits=logits).entropy().sum()
        expected = product(leaves, plain, [v[task] for v in vectors.values()])
        for ours, theirs in zip(got, expected, strict=True):
            assert th.allclose(ours[task], theirs, rtol=1e-7, atol=1e-10)


def test_preprocessing_is_sb3s():
    actor = Actor(make("image", "discrete"))
    picture = by_task(observe(IMAGE))
    assert th.equal(actor.preprocess(picture), picture.float() / 255)
    numbers = th.tensor([[0, 5], [1, 1]])
    one_hot = Actor(make("discrete", "discrete")).preprocess(numbers)
    assert th.equal(one_hot, th.nn.functional.one_hot(numbers, 6).float())


def test_no_task_has_an_influence_on_another():
    policy = make("box", "multi_discrete")
    actor = Actor(policy)
    params, observations = different(actor), actor.preprocess(by_task(observe(BOX)))
    whole = actor(params, observations)
    for task in range(N_TASKS):
        own = slice(task, task + 1)
        alone = actor({k: v[own] for k, v in params.items()}, observations[own])
        for a, b in zip(tensors(whole), tensors(alone), strict=True):
            assert th.allclose(a[own], b, atol=1e-6)
    assert kl_divergence(whole, whole).abs().max() == 0


def test_state_dependent_exploration_is_refused():
    policy = make("box", "box", use_sde=True)
    with pytest.raises(ValueError, match=r"policy must have one of the action distributions .*StateDependentNoise"):
        Actor(policy)


def test_building_an_actor_leaves_the_policy_as_it_was():
    policy = make("box", "box")
    for training in (True, False):
        policy.set_training_mode(training)
        with th.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            Actor(policy)
        assert policy.training == training
        assert all(value.grad is None for value in policy.parameters())


@pytest.mark.parametrize("observation", ["box", "matrix", "discrete"])
@pytest.mark.parametrize("action", list(ACTIONS))
def test_perceptrons_are_evaluated_directly_and_equal_the_functional_call(observation, action):
    actor = Actor(make(observation, action).double())
    observations = actor.preprocess(by_task(observe(actor.policy.observation_space)))
    params = {name: value.requires_grad_() for name, value in different(actor).items()}
    assert actor._layers is not None
    results = []
    for outputs in (actor.network_at(observations)(params), actor._under_vmap(params, observations)):
        total = th.stack([out.sin().sum() for out in outputs]).sum()
        results.append((*outputs, *th.autograd.grad(total, list(params.values()))))
    for ours, theirs in zip(*results, strict=True):
        assert th.allclose(ours, theirs, rtol=1e-11, atol=1e-11)


class OwnTanh(th.nn.Tanh):
    """A subclass, which might do anything."""


@pytest.mark.parametrize("kwargs", [{"activation_fn": th.nn.ELU}, {"activation_fn": OwnTanh}], ids=["ELU", "subclass"])
def test_other_networks_are_called_as_they_are(kwargs):
    policy = make("box", "box", **kwargs)
    assert Actor(policy)._layers is None
    check_against_sb3(policy)
    assert Actor(make("dict", "box"))._layers is None


def test_the_units_of_a_network_are_counted():
    # 5 features, two layers of 8 with their activations, 2 means
    assert Actor(make("box", "box")).n_units == 5 + 4 * 8 + 2
