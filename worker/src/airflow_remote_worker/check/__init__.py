"""`airflow-remote-worker check`: the way to central, hop by hop."""
