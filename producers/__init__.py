"""What puts streams on topics: synthetic cards, a player, a recorder. `worker` never imports it."""
