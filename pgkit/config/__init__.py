"""TOML tables to validated, frozen configurations."""
