"""
The methods of the package on the task families, under one protocol.

    python -m benchmarks.locomotion train --method bomrl-alg1 --env HalfCheetahVel --seed 0 --timesteps 4e6
    python -m benchmarks.locomotion all --env HalfCheetahVel --seeds 0 1 2 --timesteps 4e6
    python -m benchmarks.locomotion table
    python -m benchmarks.locomotion improvement
    python -m benchmarks.locomotion figures

A run that is killed goes on, to the same numbers, when it is started again; ``multitask-trpo``, ``oracle`` and ``rl2``
go on from their last evaluation, to others. Processes may share a list: each takes what no other is at.
``benchmarks/results/locomotion/<env>/<method>/seed_<seed>.json`` has the settings, what made it, and a row per
evaluation.
"""
