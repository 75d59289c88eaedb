"""Stage 3: item-side models; a user is scored from history, never from a learned user vector."""
