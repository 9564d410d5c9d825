"""The API of people and their programs, under `/remote/ui/v1`: every view and every action, for who may by Airflow's own rights.

One file per resource. None of them knows a right: :class:`.caller.Caller` asks for it before a view is read or a verb is done.
"""
