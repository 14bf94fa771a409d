"""
How much of an outer step is signal: meta-gradients at one meta-policy, on many meta-batches, without moving.

    python -m benchmarks.gradient_signal run --env HalfCheetahVel --policy trained --meta-batches 40
    python -m benchmarks.gradient_signal run --env HalfCheetahVel --policy untrained --method maml
    python -m benchmarks.gradient_signal table

A meta-batch has its own tasks and episodes; every hypergradient is taken from the same ones. The outer steps have a
fixed KL; with gradients g and steps s of meta-batches i and j, sᵢ·gⱼ/sⱼ·gⱼ is the cosine between the two steps, in
the metric of the trust region. Parts of the query episodes show what more of them would bring, and clipped tasks
whether a few drown the others.

- The *signal* of a hypergradient is the mean cosine between its steps on two meta-batches: 1 without noise, 0 where
  there is nothing else. Its root is the mean cosine between a step and the expected one.
- The *agreement* of two hypergradients is the cosine between their expected steps: the mean over pairs of different
  meta-batches, over the root of the product of their signals. Noise that they share, of the same data, is out of it.

``benchmarks/results/gradient_signal/<env>_<policy>.json`` has them with jackknife standard errors, of BO-MRL; with
``--method maml``, ``<env>_maml_<policy>.json`` has the signal of MAML's meta-gradient, after its own inner step.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch as th

from benchmarks.command_line import run_and_table
from benchmarks.gradient_signal_choices import CHOICES, MetaBatch, own
from benchmarks.gradient_signal_statistics import Sample, summarize
from benchmarks.locomotion.methods import FAMILIES, env_id, model_arguments, settings_of
from benchmarks.locomotion.policies import policy_path
from benchmarks.locomotion.runs import PACKAGES
from benchmarks.locomotion.scoring import physics
from benchmarks.provenance import commit, machine, provenance, write_json, write_text
from sb3_bomrl import BOMRL, MAML, make_meta_vec_env
from sb3_bomrl.algorithms.meta_algorithm import MetaAlgorithm
from sb3_bomrl.core.params import flatten, stack
from sb3_bomrl.core.trust_region import OuterInfo
from sb3_bomrl.meta.gradients import MetaGradient
from sb3_bomrl.types import Adaptation, Experience, Params

METHOD = "bomrl-alg1"
"""What is measured unless another one of :data:`METHODS` is asked for."""

POLICIES = ("untrained", "trained")

REFERENCES = ("implicit", "implicit_sampling")
"""
What the table compares with: the default hypergradient, and the one that estimates both parts.

The latter is not the truth: its estimate of the sampling part was seen to have the wrong sign, and a few tasks can
drown the others (``docs/bomrl.md``).
"""

MAX_STANDARD_ERROR = 0.5
"""An agreement that is known less well is not shown."""


class StandingStill(MetaAlgorithm):
    """
    A meta-algorithm whose outer steps are taken back.

    Arguments: see :class:`~sb3_bomrl.algorithms.meta_algorithm.MetaAlgorithm`.
    """

    choices: ClassVar[dict[str, Callable[[Any, MetaBatch], MetaGradient]]]
    """Meta-gradients that are compared, by name."""

    def samples(self, n_meta_batches: int) -> dict[str, list[Sample]]:
        """
        :param n_meta_batches: iterations
        :return: a sample per meta-batch, by name of :attr:`choices`
        """
        self._samples: dict[str, list[Sample]] = {name: [] for name in self.choices}
        for i in range(n_meta_batches):
            self.learn(1, log_interval=None, reset_num_timesteps=i == 0)  # the first iteration is always finished
            print(f"meta-batch {i + 1} of {n_meta_batches}", flush=True)
        return self._samples

    def _outer_step(
        self,
        phi: Params,
        gradient: MetaGradient,
        supports: Sequence[Experience],
        adapted: Sequence[Adaptation],
        query: Experience,
    ) -> OuterInfo:
        here, data = phi, MetaBatch(stack(phi, query.rollout.n_tasks), supports, adapted, query)
        for name, choice in self.choices.items():
            other = choice(self, data)
            info = super()._outer_step(phi, other, supports, adapted, query)
            there = self.actor.params()
            step = {key: there[key] - value for key, value in here.items()}
            residual = None if other.solve is None else float(other.solve.residual.mean())
            self._samples[name].append(Sample(_vector(other.gradient, here), _vector(step, here), residual))
            self.actor.load_params(here)
        return info

    def _after_outer_step(self, phases: Sequence[Experience]) -> None:
        """Leave statistics and value network as they are."""


class StandingBOMRL(StandingStill, BOMRL):
    """BO-MRL whose outer steps are taken back."""

    choices: ClassVar = CHOICES


class StandingMAML(StandingStill, MAML):
    """MAML whose outer steps are taken back."""

    choices: ClassVar = {"MAML's": own}


METHODS: dict[str, type[StandingStill]] = {METHOD: StandingBOMRL, "maml": StandingMAML}


def _vector(params: Params, like: Params) -> np.ndarray:
    """In the order of ``like``, float64."""
    return flatten({name: params[name][None] for name in like})[0].double().numpy()


def make_standing_still(family: str, policy: str, seed: int = 0, method: str = METHOD) -> StandingStill:
    """
    :param family: a key of :data:`~benchmarks.locomotion.methods.FAMILIES`
    :param policy: one of :data:`POLICIES`; ``"trained"`` is the one that is kept of the method
    :param seed: of tasks and episodes, and of the untrained policy
    :param method: a key of :data:`METHODS`
    :return: a model with the settings of the comparison, but for an outer step of a fixed KL
    :raises ValueError: if no trained policy is kept
    """
    settings = {**settings_of(method, family), "outer_step": "trpo", "line_search": False}
    env = make_meta_vec_env(env_id(family), settings["n_envs"], seed=seed, env_kwargs=physics(family, 1))
    algorithm = METHODS[method]
    model = algorithm(env=env, seed=seed, device="cpu", **model_arguments(algorithm, settings))
    if policy == "trained":
        model.set_parameters(policy_path(family, method), device="cpu")
    return model


def table(results: Path) -> str:
    """
    :param results: folder of the results
    :return: a row per family, policy and hypergradient, in Markdown
    """
    agreements = [f"agreement with `{name}`" for name in REFERENCES]
    lines = [
        f"| env | policy | hypergradient | norm | CG residual | signal | {' | '.join(agreements)} |",
        "|---" * (6 + len(REFERENCES)) + "|",
    ]
    for path in sorted(results.glob("*.json")):
        content = json.loads(path.read_text())
        for row in content["rows"]:
            residual = row["cg_residual"]
            cells = [f"{row['gradient_norm']:.3g}", "–" if residual is None else f"{residual:.2g}"]
            cells.append(_with_error(row["signal"]))
            cells += [_agreement(row["agreement"].get(name)) for name in REFERENCES]
            lines.append(f"| {content['env']} | {content['policy']} | {row['hypergradient']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _agreement(pair: Sequence[float] | None) -> str:
    return "–" if pair is None or pair[1] > MAX_STANDARD_ERROR else _with_error(pair)


def _with_error(pair: Sequence[float] | None) -> str:
    return "–" if pair is None else f"{round(pair[0], 2) + 0.0:.2f} ± {pair[1]:.2f}"  # no negative zero


def parser() -> argparse.ArgumentParser:
    """
    :return: the parser
    """
    result, measures = run_and_table("gradient_signal", __doc__)
    measures.add_argument("--env", choices=tuple(FAMILIES), required=True)
    measures.add_argument("--policy", choices=POLICIES, required=True)
    measures.add_argument("--method", choices=tuple(METHODS), default=METHOD)
    measures.add_argument("--meta-batches", type=int, default=40, help="3 at least")
    return result


def main() -> None:
    """Parse the command line and do it."""
    args = parser().parse_args()
    if args.command == "table":
        print(write_text(args.output, table(args.results)))
        return
    n_meta_batches = args.meta_batches
    if n_meta_batches < 3:
        raise SystemExit(f"--meta-batches must be at least 3, got {n_meta_batches}")
    commit()
    th.set_num_threads(1)
    option, suffix = ("", "") if args.method == METHOD else (f"--method {args.method} ", f"_{args.method}")
    command = (
        f"python -m benchmarks.gradient_signal run --env {args.env} --policy {args.policy} {option}"
        f"--meta-batches {n_meta_batches}"
    )
    samples = make_standing_still(args.env, args.policy, method=args.method).samples(n_meta_batches)
    content = {
        "provenance": provenance(command, machine(), PACKAGES),
        "env": args.env,
        "policy": args.policy,
        "policy_file": policy_path(args.env, args.method).name if args.policy == "trained" else None,
        "n_meta_batches": n_meta_batches,
        "rows": summarize(samples),
    }
    print(write_json(args.results / f"{args.env}{suffix}_{args.policy}.json", content))


if __name__ == "__main__":
    main()
