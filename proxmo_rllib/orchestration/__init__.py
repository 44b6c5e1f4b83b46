"""Who plays what and when, who watches, and what happens when somebody dies."""
