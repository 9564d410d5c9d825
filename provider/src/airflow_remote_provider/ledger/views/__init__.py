"""What people are shown of the ledger: lists by filter, in an order, page by page. Reads only.

Who may see what comes in as a :class:`.scope.Scope`; who he is, the API and the command line find out.
"""
