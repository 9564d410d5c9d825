#!/usr/bin/env bash
# The order in which Airflow's Breeze does things when `breeze start-airflow` starts its container, without the container. Sandbox:
# FILES_DIR stands for /files, DIST_DIR for /dist. Runs the command that it is given in the end, where Breeze would start Airflow.
set -e
export AIRFLOW_BREEZE_CONFIG_DIR="$FILES_DIR/airflow-breeze-config"
# Airflow 3's name of the file; ENV_FILE=variables.env: the name before.
env_file=${ENV_FILE:-environment_variables.env}

configure_environment() {
    pushd "$AIRFLOW_BREEZE_CONFIG_DIR" >/dev/null
    set -o allexport
    # shellcheck disable=SC1090
    source "$env_file"
    set +o allexport
    popd >/dev/null
}

run_init_script() {
    pushd "$AIRFLOW_BREEZE_CONFIG_DIR" >/dev/null
    # shellcheck disable=SC1091
    source init.sh
    popd >/dev/null
}

if [[ ${START_AIRFLOW:-false} == true ]]; then
    # Breeze does this in a process of its own: nothing that is exported here stays.
    (
        configure_environment
        airflow db migrate
        run_init_script
    )
fi
configure_environment
run_init_script
exec "$@"
