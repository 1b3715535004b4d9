"""A report that a scheduler starts every morning: visible stages, an artifact, a task table, each run once."""
