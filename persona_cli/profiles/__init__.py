"""Stage 2: what is known of each user: signals, history, profiles, as of any moment."""

SMALLEST_CELL = 20
"""A figure about a group is shown only where the group holds at least this many people.

Below it a figure says more about single people than about the group: whoever knows 18 of 19 members can work out the
last one, and a mean over so few moves by more than any difference worth acting on. It is a constant and no setting, so
that no run can be told to show smaller groups.
"""
