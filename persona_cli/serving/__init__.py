"""Stage 4: from models to lists: masks, top-k, rules, records."""

GENERIC = "generic"
"""The stage of those whom personalization does not cover."""
