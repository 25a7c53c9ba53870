"""Where Tether keeps what it is told: one set of SQL statements over two small engines."""
