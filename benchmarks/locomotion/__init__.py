"""
The methods of the package on the task families, under one protocol.

    python -m benchmarks.locomotion train --method bomrl-alg1 --env HalfCheetahVel --seed 0 --timesteps 4e6
    python -m benchmarks.locomotion all --env HalfCheetahVel --seeds 0 1 2 --timesteps 4e6
    python -m benchmarks.locomotion table
    python -m benchmarks.locomotion figures

A run that is stopped goes on, from its last evaluation, when it is started again.
``benchmarks/results/locomotion/<env>/<method>/seed_<seed>.json`` has the settings, what made it, and a row per
evaluation.
"""
