"""The link to central: requests, connections, proxies, and what each failure means."""
