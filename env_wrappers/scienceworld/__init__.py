"""ScienceWorld: thirty kinds of elementary-school experiments (Wang et al. 2022, arXiv:2203.07540)."""
