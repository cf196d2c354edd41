"""Strategies: pure search algorithms, one short file each."""
