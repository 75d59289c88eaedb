"""The main job on sample data: which steps, and what is learned from them."""
