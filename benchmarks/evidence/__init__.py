"""What credit assignment is worth, measured so that others can repeat it. One package a table of docs/evidence.md."""
