"""TCP: one mechanism per file, over one connection record (`connection`)."""
