"""Stage 4: from models to lists: masks, top-k, rules, records."""
