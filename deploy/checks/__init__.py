"""The checks of what is deployed: `make check-deploy`. A module each; `__main__` runs them."""
