"""Stage 1: reading, judging, deduplicating and storing events and catalogues."""
