"""The gateway to Airflow's Execution API: what each call means, whether a job may make it, and how it is passed on."""
