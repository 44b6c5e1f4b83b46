"""Who plays what and when, who watches, and what takes the place of a part that died."""
