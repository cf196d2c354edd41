"""From candidates to one: what an answer counts as in a vote, and who chooses."""
