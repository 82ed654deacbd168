"""A page on which people look into one bundle, or two side by side: what is found, and why."""
