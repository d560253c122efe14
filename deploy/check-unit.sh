#!/usr/bin/env bash
# Proves the systemd units: they parse, and `systemd-analyze security` scores the service under 2.0.
set -euo pipefail
cd "$(dirname "$0")"
command -v systemd-analyze >/dev/null || { echo "check-unit: systemd-analyze is missing (Debian: apt-get install systemd)" >&2; exit 2; }

report=$(systemd-analyze security --offline=true --no-pager mailworker.service)
score=$(grep -oP 'Overall exposure level for mailworker\.service: \K[0-9.]+' <<<"$report")
echo "mailworker.service: exposure $score (must be under 2.0)"
awk -v score="$score" 'BEGIN { exit !(score < 2.0) }' || { echo "$report" >&2; exit 1; }

# What it runs need not be installed here: /bin/true stands for it.
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
sed -E 's#^(ExecStart|ExecReload)=[^ ]*#\1=/bin/true#' mailworker.service >"$units/mailworker.service"
cp mailworker.socket "$units/"
problems=$(SYSTEMD_UNIT_PATH="$units:" systemd-analyze verify --man=no --recursive-errors=no \
    "$units/mailworker.service" "$units/mailworker.socket" 2>&1) || { echo "$problems" >&2; exit 1; }
[ -z "$problems" ] || { echo "$problems" >&2; exit 1; }
echo "mailworker.service, mailworker.socket: verified"
