"""Who may do what: settings, owners, permissions, visitors, the request guard, ZeroGPU."""
