"""The machine that a run is on: its processors, its folders, and Ray's books of what there is."""
