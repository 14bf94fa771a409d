"""Products with the Fisher matrix in Gauss-Newton form."""

from collections.abc import Callable

import torch as th

from sb3_bomrl.core.linear_solve import MatVec
from sb3_bomrl.core.params import flatten, grad, require_grad
from sb3_bomrl.types import Params

Network = Callable[[Params], tuple[th.Tensor, ...]]
"""Stacked parameters -> the parameters of the policy's distributions, e.g. logits."""

Divergence = Callable[..., th.Tensor]
"""The network's outputs -> scalar, a sum over tasks."""


def fisher_vector_product(network: Network, divergence: Divergence, params: Params) -> MatVec:
    r"""
    Return the products v ↦ Jᵀ M J v of each task (Schraudolph, 2002; Martens, 2020, Sec. 9.2).

    J is the Jacobian of the network, M the Hessian of the divergence in the network's outputs. If the divergence is
    stationary at ``params``, as KL(π_θ held fixed ‖ π_θ) is, JᵀMJ is its Hessian in the parameters: the second
    derivatives of the network are multiplied by a gradient of 0.

    One graph serves every product: J v is the derivative of Jᵀu with respect to u, M v that of the divergence's
    gradient, Jᵀv one backward pass.

    :param network: function of stacked parameters
    :param divergence: function of the network's outputs, stationary at ``network(params)``
    :param params: θ, each of shape (n_tasks, \*shape)
    :return: (n_tasks, n_params) -> (n_tasks, n_params)
    """
    theta = require_grad(params)
    outputs = network(theta)
    dummies = [th.zeros_like(out, requires_grad=True) for out in outputs]
    inner = th.stack([(out * dummy).sum() for out, dummy in zip(outputs, dummies, strict=True)]).sum()
    pulled_back = flatten(grad(inner, theta, create_graph=True))
    leaves = [out.detach().requires_grad_() for out in outputs]
    gradients = th.autograd.grad(divergence(*leaves), leaves, create_graph=True, materialize_grads=True)

    def product(v: th.Tensor) -> th.Tensor:
        tangents = th.autograd.grad((pulled_back * v).sum(), dummies, retain_graph=True, materialize_grads=True)
        curved = th.autograd.grad(gradients, leaves, tangents, retain_graph=True, materialize_grads=True)
        pulled = th.autograd.grad(
            [out for out in outputs if out.requires_grad],  # others are of frozen parameters alone
            list(theta.values()),
            [part for out, part in zip(outputs, curved, strict=True) if out.requires_grad],
            retain_graph=True,
            materialize_grads=True,
        )
        return flatten(dict(zip(theta, pulled, strict=True)))

    return product
