"""The REST API of the dashboard, the CLI and users' programs, under `/remote/ui/v1`, with Airflow's own permissions.

One module per resource. None of them checks a permission: :class:`.caller.Caller` does before a view is read or a verb is run.
"""
