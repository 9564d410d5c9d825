"""`airflow-remote-worker check`: tests the connection to central hop by hop."""
