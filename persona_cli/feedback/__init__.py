"""Stage 5: training on what came in, and keeping what wins."""
