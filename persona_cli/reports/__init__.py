"""Reports for people: text for terminals, self-contained HTML with charts. They read result documents, nothing else."""
