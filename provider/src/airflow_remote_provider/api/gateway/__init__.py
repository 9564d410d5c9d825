"""The gateway to Airflow's Execution API: the meaning of each call, whether a job may make it, and how it is passed on."""
