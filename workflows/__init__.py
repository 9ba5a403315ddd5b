"""What survives: the run, deterministic and small."""
