"""Where images come from: what each source takes (`kinds`), and what it lists."""
