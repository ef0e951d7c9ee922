"""Moving what a store holds into another store, of whatever kind: `export`, `import` and `backup` are made of this."""
