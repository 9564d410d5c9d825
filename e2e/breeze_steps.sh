#!/usr/bin/env bash
# The steps of Airflow's Breeze when `breeze start-airflow` starts its container, without the container. FILES_DIR replaces /files,
# DIST_DIR replaces /dist. At the end it runs the command in its arguments, where Breeze would start Airflow.
set -e
export AIRFLOW_BREEZE_CONFIG_DIR="$FILES_DIR/airflow-breeze-config"
# The file's name in Airflow 3; set ENV_FILE=variables.env for the name in older versions.
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
    # Breeze does this in a child process: exported variables don't remain.
    (
        configure_environment
        airflow db migrate
        run_init_script
    )
fi
configure_environment
run_init_script
exec "$@"
