"""TextWorldExpress: eight small text games by a fast engine (Jansen & Cote 2022, arXiv:2208.01174)."""
