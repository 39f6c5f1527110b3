"""NICs and routes of a running container: the rules of the game, without argv and without printing."""
