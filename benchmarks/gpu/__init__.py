"""What a GPU does with the learner, the transformers engine and a whole run; see `__main__`."""
