"""What is on disk: where a workspace is, its settings, tables, locks, atomic artifacts and run manifests."""
