"""TextWorld: generated games of rooms, containers and quests (Cote et al. 2018, arXiv:1806.11532)."""
