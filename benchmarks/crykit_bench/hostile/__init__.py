"""Damaged models and manifests, thousands of them: does anything worse happen than a refusal?

`python -m crykit_bench.hostile --runs 2000 --seed 1`
"""
