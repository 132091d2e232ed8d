#!/bin/bash
# Writes the manual pages into a directory: those of fleetctl as fleetctl prints them, the others
# from contrib/man, in which the keys of fleet.conf are those of the sample file.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1 to=$2

mkdir -p "$to"
"$bin/fleetctl" __man "$to"
IFS='"' read -r _ date _ version _ < <(grep '^\.TH' "$to/fleetctl.1")
version=${version#fleet }

# The sample file has a paragraph a key: its help, and `# key=default`.
keys() {
    awk 'BEGIN { RS = ""; FS = "\n" }
        function plain(text) { sub(/^# ?/, "", text); gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text); return text }
        NR > 1 {
            setting = plain($NF); at = index(setting, "=")
            printf ".TP\n\\fB%s\\fR=\\fI%s\\fR\n", substr(setting, 1, at - 1), substr(setting, at + 1)
            for (i = 1; i < NF; i++) printf "%s%s\n", i == 1 ? "\\&" : "", plain($i)
        }' contrib/fleet.conf.sample
}
for page in contrib/man/*; do
    while IFS= read -r line; do
        case $line in
            @KEYS@) keys ;;
            .TH*)
                line=${line/@DATE@/$date}
                printf '%s\n' "${line/@VERSION@/$version}"
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done < "$page" > "$to/${page##*/}"
done
