"""``kalam bench``: how fast this machine's Kalam is, next to the bare engines that it stands on."""
