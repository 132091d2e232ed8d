# fish completion for fleetctl. fleetctl itself says what fits, of its own command line and of the
# cluster, so this is never out of date.
function __fleetctl_complete
    set -l typed (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($typed[1] __complete -- $typed "$current" 2>/dev/null)
    if test "$answer[1]" = files
        __fish_complete_path "$current"
    end
    if set -q answer[2]
        printf '%s\n' $answer[2..-1]
    end
end
complete -c fleetctl -f -a '(__fleetctl_complete)'
