"""One search: protocols, tree, budget, draws, scoring, the runner that drives a plan, and what it returns."""
