"""Who plays what and when, what is done again, and what takes the place of a part that died."""
