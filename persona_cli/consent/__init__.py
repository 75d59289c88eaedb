"""Who may be collected, learned from, personalised for, measured and written to: one answer for every stage."""
