"""Evaluation: one strict definition of every metric, splits that no row order can change, intervals over users.

`splits` divides events into what a model may learn from and what it is tested on, `metrics` scores ranked lists against
the tested pairs, user by user, and `intervals` says how far the means over users can be trusted.
"""
