"""The link to central: requests, connections, proxies, and the explanation of failures."""
