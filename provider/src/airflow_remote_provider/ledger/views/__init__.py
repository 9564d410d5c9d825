"""The lists and summaries of the ledger that users see: filtered, ordered, page by page. They only read.

A :class:`.scope.Scope` says what a user is allowed to see. The API and the command line determine the user.
"""
