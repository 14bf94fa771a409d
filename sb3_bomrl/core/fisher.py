"""Products with the Fisher matrix in Gauss-Newton form."""

from collections.abc import Callable

import torch as th

from sb3_bomrl.core.linear_solve import MatVec
from sb3_bomrl.core.params import flatten, grad, require_grad
from sb3_bomrl.types import Params

Network = Callable[[Params], tuple[th.Tensor, ...]]
"""Stacked parameters -> the tensors that define the policy's distribution."""

Divergence = Callable[..., th.Tensor]
"""Those tensors -> scalar, a sum over tasks."""


def fisher_vector_product(network: Network, divergence: Divergence, params: Params) -> MatVec:
    r"""
    v ↦ Jᵀ M J v for every task, with J the Jacobian of the network and M the Hessian of the divergence in its outputs
    (Schraudolph, 2002; Martens, 2020, Sec. 9.2).

    Where the divergence is stationary at ``params``, as KL(π_θ held fixed ‖ π_θ) is, this is its Hessian, without the
    second derivatives of the network, which the gradient of the divergence, being 0, would multiply.

    The graph is built once and serves every product: J v by differentiating Jᵀu with respect to u, M by differentiating
    the divergence's gradient, Jᵀ by one backward pass.

    :param network: function of stacked parameters
    :param divergence: function of the network's outputs, stationary at those for ``params``
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
        pulled = th.autograd.grad(outputs, list(theta.values()), curved, retain_graph=True, materialize_grads=True)
        return flatten(dict(zip(theta, pulled, strict=True)))

    return product
