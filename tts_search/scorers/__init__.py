"""Scorers: what values the steps of a trajectory, and how step values become the value of a trajectory."""
