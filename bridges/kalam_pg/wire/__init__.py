"""Messages: in, out, and the connection that carries them."""
