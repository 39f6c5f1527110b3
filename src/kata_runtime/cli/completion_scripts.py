"""The completion scripts for shells, which run ``kata-runtime completion candidates``."""

from __future__ import annotations

# Readline splits words at "=", too: they are joined again, and the part up to "=" is removed from the candidates.
_BASH = r"""# bash completion for kata-runtime; made by: kata-runtime completion bash
_kata_runtime() {
    local -a words=() lines=()
    local index word line joined= prefix= current=
    for ((index = 1; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ ${#words[@]} -gt 0 && ( $joined || $word == = ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        [[ $word == = ]] && joined=1 || joined=
    done
    COMPREPLY=()
    mapfile -t lines < <("${COMP_WORDS[0]}" completion candidates "${words[@]}" 2>/dev/null)
    current=${words[-1]-}
    [[ $current == --*=* ]] && prefix=${current%%=*}= current=${current#*=}
    case ${lines[0]-} in
    :files | :directories)
        local kind=-f
        [[ ${lines[0]} == :directories ]] && kind=-d
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen "$kind" -- "$current")
        ;;
    *)
        for line in "${lines[@]}"; do
            word=${line%%$'\t'*}
            COMPREPLY+=("${word#"$prefix"}")
        done
        ;;
    esac
}
complete -F _kata_runtime kata-runtime
"""
_ZSH = r"""#compdef kata-runtime
# zsh completion for kata-runtime; made by: kata-runtime completion zsh
_kata_runtime() {
    local -a lines found
    local line
    lines=("${(@f)$("${(Q)words[1]}" completion candidates "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case $lines[1] in
    :files | :directories)
        compset -P '--*='
        if [[ $lines[1] == :files ]]; then _files; else _files -/; fi
        ;;
    *)
        for line in $lines; do
            found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        done
        _describe kata-runtime found
        ;;
    esac
}
if [[ $funcstack[1] == _kata-runtime ]]; then
    _kata_runtime "$@"
else
    compdef _kata_runtime kata-runtime
fi
"""
_FISH = r"""# fish completion for kata-runtime; made by: kata-runtime completion fish
function __kata_runtime_candidates
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines ($words[1] completion candidates $words[2..-1] "$current" 2>/dev/null)
    switch "$lines[1]"
        case :files
            __fish_complete_path (string replace --regex -- '^--[^=]*=' '' "$current")
        case :directories
            __fish_complete_directories (string replace --regex -- '^--[^=]*=' '' "$current")
        case '*'
            string join -- \n $lines
    end
end
complete --command kata-runtime --no-files --arguments '(__kata_runtime_candidates)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
