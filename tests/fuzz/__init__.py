"""Foreign input of every kind: whatever it is, nothing but the documented error comes of it."""
