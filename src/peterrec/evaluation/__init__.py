"""Evaluation of scores on users held out: metrics from ranks, protocols, intervals over users, and baselines."""
