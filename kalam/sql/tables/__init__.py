"""CREATE and ALTER TABLE: columns, defaults, options, and how a table is spelt again."""
