"""Injected faults and their end states; docs/reliability.md lists them."""
