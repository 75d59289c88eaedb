"""The parts of a profile: each module folds a user's events into a few columns, and merges partial folds.

A module has `FIELDS` (its columns), `NEEDED` (the columns of events that it reads beside user_id and timestamp),
`TEXTS` (which of those are texts, to be coded), `fold(part, rules)` and `merge(rows, rules)`. The law: merge is
associative and commutative, has no rows as its neutral element, and `fold(all events)` equals `merge` of the folds of
any split of them. So sums are of integers, a latest value carries its instant, and sessions are kept as intervals. A
column whose name begins with `_` is there for merging only and not shown to people.
"""
