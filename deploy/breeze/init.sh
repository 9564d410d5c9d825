# shellcheck shell=bash
# Sourced by Breeze any number of times: installs our wheels from /dist and, if Airflow is being started, creates our tables and an
# enrolment token. Completed steps are not repeated.
#
# `breeze start-airflow` runs it twice: in a child process after `airflow db migrate` (our provider was not installed yet, so our tables
# are missing), then in the shell that becomes Airflow. `breeze shell` and `breeze exec` run it once.

if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then
    # Sourced: no variable, option or `exit` of this script may affect Breeze's own shell.
    bash "${BASH_SOURCE[0]}" || echo "Remote Executor: init.sh failed, see the messages above; Airflow starts without the executor" >&2
    return 0
fi

set -euo pipefail
dist=${DIST_DIR:-/dist}
place=${FILES_DIR:-/files}/airflow-remote
token_file=$place/enrolment-token

say() { echo "Remote Executor: $*"; }

install_wheels() {
    shopt -s nullglob
    local wheels=("$dist"/airflow_remote_protocol-*.whl "$dist"/airflow_provider_remote-*.whl)
    shopt -u nullglob
    if ((${#wheels[@]} != 2)); then
        say "$dist must contain one wheel of airflow-remote-protocol and one of airflow-provider-remote, but contains" \
            "${#wheels[@]} of them; put both into the dist directory of the Airflow checkout" >&2
        return 1
    fi
    local stamp sums
    stamp=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/airflow-remote-wheels.sha256
    sums=$(sha256sum "${wheels[@]}")
    if [[ -f $stamp && $(<"$stamp") == "$sums" ]]; then
        return
    fi
    say "installing ${wheels[*]##*/}"
    # --no-deps: pip must not replace the Airflow of the checkout by a released one. Airflow already has our other dependencies.
    if python -m pip --version >/dev/null 2>&1; then
        python -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --force-reinstall "${wheels[@]}"
    else
        uv pip install --quiet --python "$(command -v python)" --no-deps --reinstall "${wheels[@]}"
    fi
    echo "$sums" >"$stamp"
}

make_tables() {
    airflow remote queues list >/dev/null 2>&1 && return
    say "creating tables"
    airflow db migrate
}

token_is_good() { # succeeds if the database has our token and it can still be used
    [[ -s $token_file && -s $token_file.id ]] || return 1
    airflow remote enrol list -o json | python -c '
import datetime, json, sys
wanted = open(sys.argv[1]).read().strip()
rows = json.loads(next(line for line in reversed(sys.stdin.read().splitlines()) if line.startswith("[")))
now = datetime.datetime.now(datetime.timezone.utc)
good = [
    row for row in rows
    if row["id"] == wanted and row["uses_left"] and not row["revoked_at"] and datetime.datetime.fromisoformat(row["expires_at"]) > now
]
sys.exit(0 if good else 1)' "$token_file.id"
}

make_token() {
    token_is_good && return
    mkdir -p "$place"
    local answer
    answer=$(airflow remote enrol create --queues default --uses 10 --expires-minutes 10080 -o json | grep '^{')
    (
        umask 077
        python -c 'import json, sys; print(json.loads(sys.argv[1])["token"])' "$answer" >"$token_file"
        python -c 'import json, sys; print(json.loads(sys.argv[1])["id"])' "$answer" >"$token_file.id"
    )
    if [[ -n ${HOST_USER_ID:-} && $EUID -eq 0 ]]; then
        chown -R "$HOST_USER_ID:${HOST_GROUP_ID:-$HOST_USER_ID}" "$place"
    fi
    say "created an enrolment token for the queue default: files/airflow-remote/enrolment-token in the checkout"
}

install_wheels
case ${START_AIRFLOW:-} in
    true | True)
        make_tables
        make_token
        ;;
esac
