"""``kalam shell``: SQL at a prompt, with psql's habits."""
