"""Recipes: an agreement, its jobs and what to make of their results, by what they are good for.

A recipe is the folder of its name beside this file: agreement.yaml, job.yaml and further jobs, and
bank.yaml and partner.yaml, what goes under `datasets` in either node's config.yaml.
"""
