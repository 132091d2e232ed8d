# bash completion for fleetctl. fleetctl itself says what fits, of its own command line and of the
# cluster, so this is never out of date.
_fleetctl() {
    local line=${COMP_LINE:0:COMP_POINT} words current value kept breaks word
    read -ra words <<<"$line"
    if [[ $line == *[[:space:]] ]]; then words+=(''); fi
    current=${words[${#words[@]} - 1]}
    # bash breaks words at characters that units and flags have, too (= : @): what it will replace
    # is only what follows the last of them, or begins with it if that is an @.
    breaks=${COMP_WORDBREAKS//[[:space:]\"\']/}
    kept=''
    if [[ -n $breaks ]]; then kept=${current%"${current##*[$breaks]}"}; fi
    kept=${kept%@}
    local answer=() files=()
    mapfile -t answer < <("$1" __complete -- "${words[@]}" 2>/dev/null)
    COMPREPLY=()
    for word in "${answer[@]:1}"; do
        word=${word%%$'\t'*}
        COMPREPLY+=("${word#"$kept"}")
    done
    if [[ ${answer[0]} == files ]]; then
        value=$current
        if [[ $current == --*=* ]]; then value=${current#*=}; fi
        mapfile -t files < <(compgen -f -- "$value")
        for word in "${files[@]}"; do
            word=${current%"$value"}$word
            COMPREPLY+=("${word#"$kept"}")
            compopt -o filenames
        done
    fi
}
complete -F _fleetctl fleetctl
