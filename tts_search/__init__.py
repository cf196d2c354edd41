"""Test-time scaling by search."""
