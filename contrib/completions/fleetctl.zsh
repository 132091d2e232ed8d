#compdef fleetctl
# zsh completion for fleetctl. fleetctl itself says what fits, of its own command line and of the
# cluster, so this is never out of date.
_fleetctl() {
    local -a answer described
    local line
    answer=("${(@f)$("${(Q)words[1]}" __complete -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    for line in "${(@)answer[2,-1]}"; do
        described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    (( $#described )) && _describe fleetctl described
    if [[ $answer[1] == files ]]; then
        [[ $PREFIX == --*=* ]] && compset -P '*='
        _files
    fi
}
_fleetctl "$@"
