"""TextCraft: crafting by text, after the environment of ADaPT (Prasad et al. 2023, arXiv:2311.05772, section 4)."""
