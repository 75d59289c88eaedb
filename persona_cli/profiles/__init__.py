"""Stage 2: what is known of each user: signals, history, profiles, as of any moment."""
