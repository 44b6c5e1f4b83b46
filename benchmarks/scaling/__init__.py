"""What an iteration would take on 1 to 1,024 engines, environment runners and learners: see `__main__`."""
