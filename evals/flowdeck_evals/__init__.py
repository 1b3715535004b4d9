"""The eval harness: suites, tapes and the release gate. It is being built; nothing is public here yet."""
