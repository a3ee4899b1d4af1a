"""Who may do what: settings, owners, permissions, visitors, the request guard, a GPU lent by the call."""
